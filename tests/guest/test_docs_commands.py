"""Every command of the documents that show commands, run as it stands there, with the output that stands there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_mcp.paths import Paths

from ..consoles import NOT_RUN, ROOT, commands, files, pattern, steady  # noqa: TID252 - the tests are no installed package

DOCUMENTS = ("README.md", "docs/first-run.md", "docs/tasks.md")
COMMAND_SECONDS = 300.0
DOCUMENT_SECONDS = 1200.0
# `uv run` finds the checkout's environment; here it is the one that runs the tests.
UV = """#!/bin/sh
[ "$1" = run ] || exit 64
shift
case "$1" in
  pyro) shift; exec "{python}" -m pyro_mcp "$@" ;;
  python) shift; exec "{python}" "$@" ;;
esac
exit 64
"""

pytestmark = pytest.mark.guest


@pytest.fixture
def reader(home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the documents types: an empty directory, with `uv` on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = programs / "uv"
    uv.write_text(UV.format(python=sys.executable))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    desk = tmp_path / "desk"
    desk.mkdir()
    return desk


@pytest.mark.timeout(DOCUMENT_SECONDS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_does_what_the_document_shows(name: str, reader: Path) -> None:
    document = ROOT / name
    for file, text in files(document).items():
        (reader / file).write_text(text)
    status = 0
    for shown in commands(document):
        if shown.command in NOT_RUN:
            continue
        # The exit code before is what the reader's shell would have in $?.
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", f"(exit {status})\n{shown.command}"],
            cwd=reader,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        status = done.returncode
        text = done.stdout.decode(errors="replace")
        where = f"{name}:{shown.line}: {shown.command}"
        assert pattern(shown.output).fullmatch(steady(text)), (
            f"{where}\n--- the document shows\n{shown.output}--- it was\n{text}"
        )
