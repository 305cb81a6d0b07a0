#!/usr/bin/env bash
# Make sure that there is a uv: the one on PATH, or one from the Python package index in a directory of its own.
set -euo pipefail

if command -v uv >/dev/null || [ -x "$HOME/.local/bin/uv" ]; then
  exit 0
fi
if ! command -v python3 >/dev/null; then
  echo "pyro needs Python 3.11 or newer: install the package python3" >&2
  exit 1
fi
home="${XDG_DATA_HOME:-$HOME/.local/share}/pyro-mcp/uv"
if ! python3 -m venv "$home" >/dev/null 2>&1; then
  # Debian keeps the venv module in a package of its own.
  [ "$(id -u)" = 0 ] && privileged=() || privileged=(sudo)
  "${privileged[@]}" apt-get update -qq
  "${privileged[@]}" apt-get install -qq --yes --no-install-recommends python3-venv >/dev/null
  python3 -m venv "$home"
fi
"$home/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.5,<1'
mkdir -p "$HOME/.local/bin"
ln -sf "$home/bin/uv" "$HOME/.local/bin/uv"
if [ "$(id -u)" = 0 ] && [ ! -e /usr/local/bin/uv ]; then
  ln -s "$home/bin/uv" /usr/local/bin/uv
fi
