"""Standard streams that are closed, full, or whose reader goes away: a message at most, and never a traceback."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_mcp.cli.main import run
from pyro_mcp.paths import Paths

pytestmark = pytest.mark.usefixtures("paths")
PYRO = f"{sys.executable} -m pyro_mcp"
FULL = "[error] the output cannot be written: No space left on device"


def shell(command: str) -> "subprocess.CompletedProcess[str]":
    """What becomes of *command*."""
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "words", ["env list", "env list --json", "config show", "--help", "--version", "completion bash"]
)
def test_a_full_disk_is_a_message(words: str) -> None:
    done = shell(f"{PYRO} {words} >/dev/full")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, FULL)
    assert "Traceback" not in done.stderr


def test_a_failure_that_cannot_be_told_as_json_is_told_on_stderr() -> None:
    done = shell(f"{PYRO} env inspect nosuch:1 --json >/dev/full")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, FULL)


@pytest.mark.parametrize("words", ["env list", "env list --json", "--help", "run --help", "--version"])
def test_a_reader_that_is_gone_ends_it_silently(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "pyro_mcp", *words.split()]
    with open(writing, "wb") as pipe:  # noqa: PTH123 - a descriptor
        done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_harms_nothing(closed: str) -> None:
    done = shell(f"{PYRO} env list {closed}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    """Else what a guest prints would go into that file: the database, for instance."""
    code = (
        "import os; from pyro_mcp.__main__ import _open_standard_streams;"
        "_open_standard_streams(); print('out'); number = os.open('number', os.O_CREAT | os.O_WRONLY);"
        "os.write(number, str(number).encode())"
    )
    done = shell(f'cd {tmp_path} && {sys.executable} -c "{code}" {closed}')
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "number").read_text()) > 2


def test_progress_that_nobody_takes_is_no_failure(no_vmm: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    assert run(["run", "debian:12", "--allow-host-compat", "--", "exit 3"]) == 3


def test_output_of_a_command_that_cannot_be_written_ends_it(no_vmm: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pyro_mcp.cli.render.os.write", refuse)
    code = run(["run", "debian:12", "--allow-host-compat", "--", "echo out; exec sleep 1000"])
    monkeypatch.undo()
    assert code == 125
    assert list(no_vmm.machines.glob("*")) == []
