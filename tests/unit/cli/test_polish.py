"""What makes the command line pleasant: help in sections, completion, quiet, colours, hints, settings."""

import json
import os
import subprocess
from collections.abc import Iterator

import click
import pytest

from pyro_mcp.cli import render
from pyro_mcp.cli.completion import SHELLS
from pyro_mcp.cli.main import pyro, run
from pyro_mcp.config.settings import SETTINGS
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.paths import Paths

pytestmark = pytest.mark.usefixtures("paths")


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below *command*."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, (*words, name))


EVERY = dict(leaves(pyro))
# Their results are no objects: a conversation, or what another program is to read.
WITHOUT_JSON = {("setup",), ("completion",), ("mcp", "config"), ("mcp", "serve")}


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is offered for the last word of *line*."""
    monkeypatch.setenv("_PYRO_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", line)
    with pytest.raises(SystemExit) as ended:
        run([])
    assert ended.value.code == 0
    return [shown.partition(",")[2] for shown in capsys.readouterr().out.split()]


@pytest.mark.parametrize("words", sorted(EVERY), ids=" ".join)
def test_every_command_explains_itself_and_each_option(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: pyro {' '.join(words)}")
    for parameter in EVERY[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("words", sorted(set(EVERY) - WITHOUT_JSON), ids=" ".join)
def test_every_command_with_a_result_has_it_as_json_too(words: tuple[str, ...]) -> None:
    options = {name for parameter in EVERY[words].params for name in parameter.opts}
    always = words[0] == "demo"  # its result is JSON in any case
    assert "--json" in options or always


@pytest.mark.parametrize("words", sorted(set(EVERY) - WITHOUT_JSON - {("demo", "ollama")}), ids=" ".join)
def test_every_failure_is_json_too_when_that_was_asked_for(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--json", "--nosuch"]) == 2
    failure = json.loads(capsys.readouterr().out)
    assert (failure["ok"], failure["code"]) == (False, "invalid_request")
    arguments = [one for one in EVERY[words].params if isinstance(one, click.Argument) and one.required]
    if arguments:
        code = run([*words, "--json", *("no such" for _ in arguments), *(["--", "true"] if words == ("run",) else [])])
        shown = capsys.readouterr()
        failure = json.loads(shown.out)
        assert code in (1, 2, 125)
        assert failure["ok"] is False
        assert failure["error"]
        assert failure["remedy"]
        assert "Traceback" not in shown.err


def test_the_help_of_a_run_has_its_options_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    run(["run", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line in ("Machine:", "Network:", "Command:", "Options:")] == [
        "Machine:",
        "Network:",
        "Command:",
        "Options:",
    ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["task", "exce"], "Did you mean 'exec'?"),
        (["env", "lst"], "Did you mean 'list'?"),
        (["task", "sync", "psh"], "Did you mean 'push'?"),
        (["run", "debian:12", "--netwrok", "--", "true"], "--network"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_code_for_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_PYRO_COMPLETE" in capsys.readouterr().out


def test_bash_takes_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    run(["completion", "bash"])
    code = capsys.readouterr().out
    done = subprocess.run(["/bin/bash", "-ec", f"{code}\ncomplete -p pyro"], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("pyro")


def test_verbs_environments_and_options_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed("pyro ta", monkeypatch, capsys) == ["task"]
    assert completed("pyro task st", monkeypatch, capsys) == ["status"]
    assert completed("pyro run deb", monkeypatch, capsys) == ["debian:12", "debian:12-base", "debian:12-build"]
    assert completed("pyro run --vcpu", monkeypatch, capsys) == ["--vcpu-count"]


def test_tasks_are_completed_by_name(
    no_vmm: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed("pyro task exec ", monkeypatch, capsys) == []
    assert not no_vmm.state.exists()
    monkeypatch.delenv("_PYRO_COMPLETE")
    assert run(["task", "create", "debian:12", "--allow-host-compat", "--name", "work", "--quiet"]) == 0
    capsys.readouterr()
    assert completed("pyro task exec w", monkeypatch, capsys) == ["work"]
    monkeypatch.delenv("_PYRO_COMPLETE")
    assert run(["task", "delete", "work"]) == 0


def test_quiet_leaves_the_result_and_what_must_be_seen(no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["debian:12", "--allow-host-compat", "--json", "--", "echo out"]
    assert run(["run", *words]) == 0
    assert "phase=" in capsys.readouterr().err
    assert run(["run", "--quiet", *words]) == 0
    quiet = capsys.readouterr()
    assert quiet.err == ""
    assert json.loads(quiet.out)["stdout"] == "out\n"
    assert run(["run", "-q", "debian:12", "--allow-host-compat", "--", "true"]) == 0
    assert capsys.readouterr().err.startswith("[run] warning: this ran on the host itself")
    assert run(["run", "-q", "nosuch:1", "--", "true"]) == 125
    assert "[error]" in capsys.readouterr().err
    assert run(["run", *words]) == 0
    assert "phase=" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_errors_are_coloured_on_a_terminal_unless_no_color_is_set(
    *, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    leader, follower = os.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            render.failure(InvalidRequest("no"), as_json=False)
            shown = os.read(leader, 4096).decode()
    finally:
        os.close(leader)
    assert ("\x1b[" in shown) == coloured
    assert "no" in shown


def test_config_show_has_every_setting_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYRO_MAX_ACTIVE_VMS", "7")
    monkeypatch.setenv("PYRO_DRIVR", "qemu")
    assert run(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = {row["variable"]: row for row in shown["settings"]}
    assert list(rows) == [row.variable for row in SETTINGS]
    assert (rows["PYRO_MAX_ACTIVE_VMS"]["value"], rows["PYRO_MAX_ACTIVE_VMS"]["source"]) == (7, "environment")
    assert (rows["PYRO_DRIVER"]["value"], rows["PYRO_DRIVER"]["source"]) == ("auto", "default")
    assert shown["unknown"] == ["PYRO_DRIVR is not a setting; did you mean PYRO_DRIVER?"]
    monkeypatch.setenv("PYRO_DRIVER", "xen")
    assert run(["config", "show"]) == 1
    assert "xen (environment) not valid: it takes one of auto, firecracker, qemu" in capsys.readouterr().out
