"""The command line of tasks, as far as it goes without a guest."""

import json
from collections.abc import Callable

import pytest

from pyro_mcp.cli.main import run
from pyro_mcp.cli.options import parse_labels
from pyro_mcp.cli.task_signal import parse_signal
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import MachineSpec, TaskSpec
from pyro_mcp.paths import Paths

VERBS = (
    "create",
    "status",
    "list",
    "delete",
    "extend",
    "exec",
    "attach",
    "wait",
    "signal",
    "logs",
    "sync push",
    "sync pull",
)
Out = Callable[[], tuple[str, str]]


@pytest.fixture
def out(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Out:
    return lambda: tuple(capsys.readouterr())  # type: ignore[return-value]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, out: Out) -> None:
    assert run(["task", *verb.split(), "--help"]) == 0
    assert f"pyro task {verb}" in out()[0]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "list"])
def test_a_missing_argument_is_a_usage_error(verb: str, out: Out) -> None:
    assert run(["task", *verb.split()]) == 2
    assert "Missing argument" in out()[1]


@pytest.mark.parametrize("text", [".", "-lead", "a b", "", "x" * 65, "0123456789ab", "../x"])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        TaskSpec(MachineSpec("debian:12"), name=text)


@pytest.mark.parametrize("seconds", [0, -1, 7 * 24 * 3600 + 1, True])
def test_an_idle_time_outside_the_limits_is_refused(seconds: int) -> None:
    with pytest.raises(InvalidRequest, match="idle_seconds must be between 1 and 604800"):
        TaskSpec(MachineSpec("debian:12"), idle_seconds=seconds)


def test_labels_are_pairs_within_limits() -> None:
    assert parse_labels(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    for text in ("a", "=b"):
        with pytest.raises(InvalidRequest):
            parse_labels([text])
    for labels in ({"a b": "c"}, {"a": "x" * 121}, {"a": "\x1b[0m"}, {str(number): "" for number in range(65)}):
        with pytest.raises(InvalidRequest):
            TaskSpec(MachineSpec("debian:12"), labels=labels)


@pytest.mark.parametrize(("text", "number"), [("TERM", 15), ("sigkill", 9), ("Int", 2), ("15", 15)])
def test_a_signal_is_a_name_or_a_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


def test_a_word_that_is_no_signal_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="NOPE"):
        parse_signal("NOPE")


def test_an_empty_list_says_so_and_starts_no_keeper(out: Out, paths: Paths) -> None:
    assert run(["task", "list"]) == 0
    assert out() == ("no tasks\n", "")
    assert run(["task", "list", "--json"]) == 0
    assert json.loads(out()[0]) == {"count": 0, "tasks": [], "damaged": []}
    assert not paths.keeper_lock.exists()


@pytest.mark.parametrize(("verb", "code"), [("status", 1), ("logs", 1), ("delete", 1), ("exec", 125), ("wait", 125)])
def test_an_unknown_task_is_named_with_the_exit_code_of_its_verb(verb: str, code: int, out: Out) -> None:
    more = {"exec": ["--", "true"], "wait": ["0" * 16]}.get(verb, [])
    assert run(["task", verb, "nobody", *more]) == code
    shown, errors = out()
    assert (shown, "there is no task 'nobody'" in errors) == ("", True)
    assert run(["task", verb, "nobody", "--json", *more]) == code
    assert json.loads(out()[0])["code"] == "unknown_task"


def test_exec_needs_a_command_and_detached_takes_no_input(out: Out) -> None:
    assert run(["task", "exec", "demo"]) == 125
    assert "command is required after `--`" in out()[1]
    assert run(["task", "exec", "demo", "--detach", "-i", "--", "cat"]) == 125
    assert "--detach goes with neither" in out()[1]


def test_options_are_taken_before_and_after_the_task(out: Out) -> None:
    for words in (["--timeout-seconds", "-1", "demo"], ["demo", "--timeout-seconds", "-1"]):
        assert run(["task", "exec", *words, "--", "true"]) == 125
        assert "timeout_seconds must be positive" in out()[1]


def test_extend_without_anything_to_change_is_refused(out: Out) -> None:
    assert run(["task", "extend", "demo"]) == 1
    assert "nothing to change" in out()[1]
