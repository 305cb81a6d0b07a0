"""The door to other programs, with real programs."""

import os
import signal
from pathlib import Path

import pytest

from pyro_mcp.errors import ProgramFailed, ProgramMissing
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until


def test_output_and_status_come_back() -> None:
    done = proc.run(["sh", "-c", "echo out; echo err >&2; exit 3"], Deadline.after(10), check=False)
    assert (done.stdout, done.stderr, done.status) == (b"out\n", b"err\n", 3)


def test_a_failure_shows_the_command_and_the_end_of_its_errors() -> None:
    with pytest.raises(ProgramFailed) as caught:
        proc.run(["sh", "-c", "echo first >&2; echo 'last one' >&2; exit 9"], Deadline.after(10))
    assert "status 9" in caught.value.cause
    assert caught.value.details[0].startswith("$ sh -c ")
    assert caught.value.details[-1] == "last one"


def test_control_characters_in_the_errors_are_made_harmless() -> None:
    with pytest.raises(ProgramFailed) as caught:
        proc.run(["sh", "-c", r"printf 'a\033[2Jb' >&2; exit 1"], Deadline.after(10))
    assert "\x1b" not in "".join(caught.value.details)


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(ProgramFailed, match="took too long"):
        proc.run(["sh", "-c", f"sleep 100 & echo $! > {note}; wait"], Deadline.after(0.5))
    child = int(note.read_text())
    assert until(lambda: ProcessId.of(child) is None, Deadline.after(5))


def test_a_program_that_ignores_sigterm_is_ended_all_the_same() -> None:
    with pytest.raises(ProgramFailed):
        proc.run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], Deadline.after(0.3))


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(proc, "PATH", str(tmp_path))
    with pytest.raises(ProgramMissing) as caught:
        proc.find("mmdebstrap")
    assert "pyro setup" in caught.value.remedy


def test_the_environment_is_clean_and_stdin_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    done = proc.run(["sh", "-c", "env; cat"], Deadline.after(10))
    assert b"hunter2" not in done.stdout
    assert b"LC_ALL=C.UTF-8" in done.stdout


def test_endless_output_is_bounded_and_its_end_is_kept() -> None:
    done = proc.run(["sh", "-c", "head -c 20000000 /dev/zero; echo end"], Deadline.after(30))
    assert len(done.stdout) == proc.OUTPUT_LIMIT
    assert done.stdout.endswith(b"end\n")


def test_only_the_passed_descriptors_reach_a_detached_program(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    stray = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(stray, True)
    process = proc.spawn_detached(["/bin/sh", "-c", f"ls /proc/self/fd > /dev/fd/{writer}"], pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader) as stream:
        listed = {int(word) for word in stream.read().split()}
    process.wait()
    os.close(stray)
    assert stray not in listed
    assert writer in listed


def test_a_stranger_with_a_reused_pid_is_not_signalled() -> None:
    process = proc.spawn_detached(["/bin/sleep", "100"], pass_fds=[])
    try:
        imposter = ProcessId(process.pid, 1)
        assert not imposter.alive
        assert imposter.stop(grace=0.1, deadline=Deadline.after(1))
        assert process.poll() is None
    finally:
        real = ProcessId.of(process.pid)
        assert real is not None
        assert real.stop(grace=0.5, deadline=Deadline.after(5))
        assert process.wait() == -signal.SIGTERM
