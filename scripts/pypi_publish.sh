#!/usr/bin/env bash
# Upload what `make dist` made. TWINE_PASSWORD is the token; TWINE_USERNAME (default: __token__) and
# PYPI_REPOSITORY_URL (default: twine's) say whose and where. Publishing again sends only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
dist="${PYRO_DIST_DIR:-dist}"
look='import sys, zipfile; sys.exit("pyro_mcp/runtime_bundle/NOTICE" not in zipfile.ZipFile(sys.argv[1]).namelist())'

if [ -z "${TWINE_PASSWORD:-}" ]; then
  echo "set TWINE_PASSWORD to the token of the package index" >&2
  exit 1
fi
version=$(python3 -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
files=("$dist"/pyro_mcp-"$version".tar.gz "$dist"/pyro_mcp-"$version"-*.whl)
for file in "${files[@]}"; do
  if [ ! -f "$file" ]; then
    echo "$file is missing: run \`make dist\` first" >&2
    exit 1
  fi
done
for file in "$dist"/*.whl; do
  if ! python3 -c "$look" "$file"; then
    echo "$file has no runtime inside: run \`make dist\`" >&2
    exit 1
  fi
done

export TWINE_USERNAME="${TWINE_USERNAME:-__token__}"
to=(--skip-existing)
if [ -n "${PYPI_REPOSITORY_URL:-}" ]; then
  to=(--repository-url "$PYPI_REPOSITORY_URL")  # only twine's own index knows --skip-existing
fi
twine check --strict "${files[@]}"
twine upload --non-interactive --disable-progress-bar "${to[@]}" "${files[@]}"
