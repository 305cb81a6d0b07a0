#!/usr/bin/env bash
# Build the distributions, look into them, and run a guest from the wheel in clean environments.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo "$HOME/.local/bin/uv")
UV_CACHE_DIR=$("$uv" cache dir)  # XDG_CACHE_HOME is another below
export UV_CACHE_DIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make --no-print-directory dist
version=$("$uv" version --short)
wheel=$(echo dist/pyro_mcp-"$version"-*-manylinux_*.whl)
sdist=dist/pyro_mcp-$version.tar.gz
echo "built $(basename "$wheel") ($(stat --format %s "$wheel") bytes) and $(basename "$sdist")"

UV_PROJECT_ENVIRONMENT=build/publish-venv "$uv" run --quiet --only-group publish twine check --strict "$wheel" "$sdist"
"$uv" run --quiet python scripts/check_wheel.py "$wheel"
# The schema of the SBOM is the standard's own.
"$uv" run --quiet --no-project --with 'cyclonedx-python-lib[json-validation]>=8,<13' python - build/runtime_bundle/sbom.cdx.json <<'PYTHON'
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text())
sys.exit(f"the SBOM is not valid: {error}" if error else 0)
PYTHON
# The source distribution is whole: a wheel can be built from it alone.
"$uv" build --quiet --wheel --out-dir "$work/from-sdist" "$sdist"
echo "the source distribution builds $(basename "$work"/from-sdist/*.whl)"

# A user with the environment of this one, and nothing else: no kernel, no Firecracker, no way to an archive.
"$uv" run --quiet pyro env pull debian:12 >/dev/null
environments=$("$uv" run --quiet pyro env inspect debian:12 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["cache_dir"])')
export PYRO_ENVIRONMENT_CACHE_DIR="$environments" XDG_STATE_HOME="$work/state" PYRO_DEBIAN_MIRROR=http://127.0.0.1:9/debian
wheel=$(realpath "$wheel")
cd "$work"

for resolution in highest lowest-direct; do
  export XDG_CACHE_HOME="$work/cache-$resolution"
  "$uv" venv --quiet --clear venv
  VIRTUAL_ENV="$work/venv" "$uv" pip install --quiet --resolution "$resolution" "$wheel"
  venv/bin/pyro --version
  venv/bin/pyro doctor >/dev/null
  offered=$(_PYRO_COMPLETE=bash_complete COMP_LINE='pyro run debian:12-ba' COMP_WORDBREAKS=: venv/bin/pyro)
  [ "$offered" = "plain,12-base" ] || { echo "completion offers: $offered" >&2; exit 1; }
  answer=$(venv/bin/pyro run debian:12 -- echo from the wheel)
  [ "$answer" = "from the wheel" ] || { echo "the guest answered: $answer" >&2; exit 1; }
  venv/bin/pyro runtime verify | tee parts
  grep -q '^firecracker \[ready\].*(embedded)' parts || { echo "the embedded Firecracker is not used" >&2; exit 1; }
  echo "dependencies $resolution: a guest ran"
done

answer=$("$uv" tool run --from "$wheel" pyro run debian:12 -- git --version)
echo "uvx: $answer"
case $answer in "git version "*) ;; *) exit 1 ;; esac
