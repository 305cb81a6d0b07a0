#!/usr/bin/env bash
# Draw docs/first-run.svg from docs/first-run.tape: what a real terminal shows of real guests.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo "$HOME/.local/bin/uv")
# The first machine of a kind has more to say; the picture is of the others.
"$uv" run --quiet pyro run debian:12 -- true 2>/dev/null
"$uv" run --quiet python scripts/render_tape.py docs/first-run.tape docs/first-run.svg
