"""The command line without a guest: parsing, messages, exit codes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pyro_mcp import __version__
from pyro_mcp.cli.main import VERBS, run
from pyro_mcp.paths import Paths

pytestmark = pytest.mark.usefixtures("paths")


@pytest.fixture
def no_input() -> Iterator[IO[str]]:
    with Path("/dev/null").open() as nothing:
        yield nothing


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pyro {__version__}\n"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: pyro {verb}")


def test_the_help_lists_every_verb_without_importing_it() -> None:
    code = "import sys; from pyro_mcp.cli.main import run; run(['--help']); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines() if line.startswith("  ")]
    assert set(VERBS) <= set(listed)
    loaded = done.stderr.split()
    assert "pyro_mcp.cli.main" in loaded
    assert {module for module, _ in VERBS.values()} & set(loaded) == set()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run"], "Missing argument 'ENV'"),
        (["run", "debian:12", "--vcpu-count", "many", "--", "true"], "not a valid integer"),
        (["run", "debian:12", "--nosuch", "--", "true"], "No such option"),
        (["run", "debian:12", "git", "--version"], "go behind `--`"),
        (["run", "debian:12", "--driver", "xen", "--", "true"], "xen"),
        (["env"], "Usage"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_a_usage_error(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (["debian:12"], "invalid_request", "command is required after `--`"),
        (["debian:12", "--", ""], "invalid_request", "command must not be empty"),
        (["nosuch:1", "--", "true"], "unknown_environment", "nosuch:1"),
        (["debain:12", "--", "true"], "unknown_environment", "debian:12"),
        (["debian:12", "--vcpu-count", "9", "--", "true"], "invalid_request", "vcpu_count must be between 1 and 8"),
        (["debian:12", "--mem-mib", "1", "--", "true"], "invalid_request", "mem_mib must be between 256 and 32768"),
        (["debian:12", "--disk-mib", "1", "--", "true"], "invalid_request", "disk_mib must be between"),
        (["debian:12", "--ttl-seconds", "1", "--", "true"], "invalid_request", "ttl_seconds must be between 60"),
        (["debian:12", "--timeout-seconds", "0", "--", "true"], "invalid_request", "timeout_seconds must be positive"),
        (["debian:12", "--timeout-seconds", "nan", "--", "true"], "invalid_request", "timeout_seconds"),
        (["debian:12", "--env", "novalue", "--", "true"], "invalid_request", "NAME=VALUE"),
        (["debian:12", "--cwd", "relative", "--", "true"], "invalid_request", "cwd must be an absolute path"),
        (["debian:12", "--user", "a b", "--", "true"], "invalid_request", "user must be"),
        (["debian:12", "--tty", "--", "true"], "invalid_request", "--tty needs a terminal"),
        (["debian:12", "--allow-host", "*", "--", "true"], "invalid_request", "neither a host name nor"),
        (["debian:12", "--allow-private", "8.8.8.0/24", "--", "true"], "invalid_request", "not a private range"),
        (["debian:12", "--network-policy", "nosuch", "--", "true"], "invalid_request", "cannot be read"),
        (["../../etc", "--", "true"], "invalid_request", "etc"),
        (["a\nb", "--", "true"], "invalid_request", "a\\nb"),
        (["debian:12", "--", "x" * 200_000], "invalid_request", "longer than"),
    ],
)
def test_a_wrong_request_has_one_message_a_remedy_and_exit_code_125(
    words: list[str],
    code: str,
    cause: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_input: IO[str],
) -> None:
    monkeypatch.setattr("sys.stdin", no_input)
    assert run(["run", *words]) == 125
    human = capsys.readouterr()
    assert human.out == ""
    assert sum(line.startswith("[error]") for line in human.err.splitlines()) == 1
    assert cause in human.err
    at = words.index("--") if "--" in words else len(words)
    assert run(["run", *words[:at], "--json", *words[at:]]) == 125
    failure = json.loads(capsys.readouterr().out)
    assert failure["ok"] is False
    assert failure["code"] == code
    assert cause in failure["error"] or cause in failure["remedy"]
    assert failure["remedy"]


def test_a_usage_error_is_json_too_when_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "debian:12", "--json", "--vcpu-count", "many", "--", "true"]) == 2
    failure = json.loads(capsys.readouterr().out)
    assert failure["ok"] is False
    assert "many" in failure["error"]


def test_a_json_word_of_the_command_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "nosuch:1", "--", "--json"]) == 125
    assert capsys.readouterr().out == ""


def test_a_bad_setting_is_named_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRO_DRIVER", "xen")
    assert run(["env", "list"]) == 1
    assert "PYRO_DRIVER" in capsys.readouterr().err


def test_an_environment_cache_that_is_a_file_is_a_message(
    paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = paths.state.parent / "file"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(place))
    assert run(["run", "debian:12", "--", "true"]) == 125
    assert str(place) in capsys.readouterr().err


def test_without_qemu_the_remedy_is_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pyro_mcp.host.proc.PATH", str(tmp_path))
    assert run(["run", "debian:12", "--", "true"]) == 125
    shown = capsys.readouterr().err
    assert "qemu-system-x86_64 is not installed" in shown
    assert "qemu-system-x86" in shown


def test_doctor_without_any_program_reports_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("pyro_mcp.host.proc.PATH", str(tmp_path))
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is False
    assert "qemu-system-x86" in report["missing_packages"]
    assert any(finding["fatal"] for finding in report["findings"])
    assert all(finding["remedy"] for finding in report["findings"])


def test_a_host_without_a_vmm_runs_nothing_unless_that_was_allowed(
    no_vmm: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", "debian:12", "--", "echo ran"]) == 125
    assert capsys.readouterr().out == ""
    assert run(["run", "debian:12", "--allow-host-compat", "--json", "--", "echo ran; exit 3"]) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["stdout"] == "ran\n"
    assert result["execution_mode"] == "host_compat"
    assert result["isolation"] == {"vmm": "none", "accelerator": "none", "sandbox": []}
