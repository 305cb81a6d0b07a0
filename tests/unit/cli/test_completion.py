"""Completion in the shells themselves: what the Tab key makes of a line, in an interactive bash, zsh and fish."""

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyro_mcp.cli.completion import SHELLS
from pyro_mcp.cli.main import run
from pyro_mcp.paths import Paths

TAB = "\t"
CLEAR = "\x15"  # Ctrl-U
SHOW = "\x18"  # Ctrl-X: the shell is told to show the line as it stands
SHOWN = re.compile(rb"LINE<(.*?)>", re.DOTALL)
ANSWER_SECONDS = 60.0
READY = "<ready>"

# How each shell is started without anybody's configuration, and what is typed into it first.
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
PREPARE = {
    "bash": (
        "bind 'set enable-bracketed-paste off'",
        """bind -x '"\\C-x": printf "LINE<%s>" "$READLINE_LINE"'""",
        'source "$COMPLETION"',
    ),
    "zsh": (
        "unsetopt ZLE_BRACKETED_PASTE PROMPT_SP; autoload -Uz compinit && compinit -D -u",
        "show() { print -rn -- \"LINE<$BUFFER>\" }; zle -N show; bindkey '^X' show",
        'source "$COMPLETION"',
    ),
    "fish": (
        "function fish_prompt; end; function show; printf 'LINE<%s>' (commandline); end; bind \\cx show",
        'source "$COMPLETION"',
    ),
}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = b""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._descriptor, text.encode())

    def until(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """Read until *pattern* is there; what came before it is forgotten."""
        while (found := pattern.search(self._seen)) is None:
            ready, _, _ = select.select([self._descriptor], [], [], ANSWER_SECONDS)
            assert ready, f"the shell says nothing more: {self._seen!r}"
            self._seen += os.read(self._descriptor, 4096)
        self._seen = self._seen[found.end() :]
        return found

    def line_after(self, keys: str) -> str:
        """The line as it stands when *keys* were pressed and worked off."""
        self.type(CLEAR + keys + SHOW)
        return self.until(SHOWN)[1].decode()


@contextmanager
def shell(name: str, directory: Path) -> Iterator[Shell]:
    """A shell that has loaded pyro's completion; it is ended with the block."""
    program = shutil.which(name)
    assert program is not None, f"`make dev-setup` installs {name}"
    descriptor, theirs = os.openpty()
    more = {"TERM": "dumb", "PS1": "", "HOME": str(directory), "COMPLETION": str(directory / "completion")}
    process = subprocess.Popen(
        ["setsid", "--ctty", program, *START[name][1:]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env={**os.environ, **more},
    )
    os.close(theirs)
    try:
        opened = Shell(descriptor)
        for command in (*PREPARE[name], f"echo '{READY[:3]}''{READY[3:]}'"):
            opened.type(f"{command}\r")
        opened.until(re.compile(READY.encode()))
        yield opened
    finally:
        os.close(descriptor)  # a shell whose terminal is gone ends
        process.wait(ANSWER_SECONDS)


@pytest.fixture(params=SHELLS)
def opened(
    request: pytest.FixtureRequest,
    no_vmm: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shell]:
    """Each shell, with a ``pyro`` on its PATH, a task named ``work`` and a file ``notes.tar``."""
    assert run(["completion", request.param]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    program = tmp_path / "bin" / "pyro"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pyro_mcp "$@"\n')
    program.chmod(0o755)
    (tmp_path / "notes.tar").touch()
    assert run(["task", "create", "debian:12", "--allow-host-compat", "--name", "work", "--quiet"]) == 0
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with shell(request.param, tmp_path) as started:
        yield started
    assert run(["task", "delete", "work"]) == 0


def test_the_tab_key_completes_verbs_names_with_colons_options_tasks_and_files(opened: Shell) -> None:
    assert opened.line_after(f"pyro tas{TAB}") == "pyro task "
    assert opened.line_after(f"pyro run debian:12-ba{TAB}") == "pyro run debian:12-base "
    assert opened.line_after(f'pyro run "debian:12-ba{TAB}') == 'pyro run "debian:12-base" '
    assert opened.line_after(f"pyro run debi{TAB}") == "pyro run debian:12"
    assert opened.line_after(f"pyro run --vcpu{TAB}") == "pyro run --vcpu-count "
    assert opened.line_after(f"pyro run --driver=qe{TAB}").rstrip() == "pyro run --driver=qemu"
    assert opened.line_after(f"pyro task exec w{TAB}") == "pyro task exec work "
    assert opened.line_after(f"pyro task sync push work not{TAB}") == "pyro task sync push work notes.tar "
