#!/usr/bin/env bash
# Build the wheel and the source distribution, install the wheel into a clean environment, and run one guest from there.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo "$HOME/.local/bin/uv")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$uv" build --quiet --out-dir "$work/dist"
wheel=$(echo "$work"/dist/pyro_mcp-*-manylinux_*.whl)
echo "built $(basename "$wheel") ($(stat --format %s "$wheel") bytes)"
for part in pyro_mcp/_bin/pyro-agent pyro_mcp/py.typed; do
  python3 -m zipfile --list "$wheel" | grep -q "$part" || { echo "the wheel lacks $part" >&2; exit 1; }
done

for resolution in highest lowest-direct; do
  "$uv" venv --quiet --clear "$work/venv"
  VIRTUAL_ENV="$work/venv" "$uv" pip install --quiet --resolution "$resolution" "$wheel"
  (cd "$work" && venv/bin/pyro --version && venv/bin/pyro doctor >/dev/null)
  answer=$(cd "$work" && venv/bin/pyro run debian:12 -- echo from the wheel)
  [ "$answer" = "from the wheel" ] || { echo "the guest answered: $answer" >&2; exit 1; }
  echo "dependencies $resolution: a guest ran"
done
