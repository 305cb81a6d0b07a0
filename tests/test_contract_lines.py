"""The lines for people that the 2.3.0 line promises: what begins them, their order, and which stream they are on.

More lines and more words at the end of a line may come; none of these may go.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyro_mcp import __version__
from pyro_mcp.cli import env, task_sync
from pyro_mcp.cli.main import run
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.model import EnvironmentRecord, PulledEnvironment
from pyro_mcp.paths import Paths

Capture = pytest.CaptureFixture[str]
HOST = "--allow-host-compat"
ID = r"[0-9a-f]{12}"
DIGEST = "a" * 64
DOCTOR = (
    "Platform: linux-x86_64",
    "Runtime: (PASS|FAIL)",
    "KVM: exists=(yes|no) readable=(yes|no) writable=(yes|no)",
    "Environment cache: /.+",
    "Capabilities: vm_boot=(yes|no) guest_exec=(yes|no) guest_network=(yes|no)",
    "Networking: tun=(yes|no) ip_forward=(yes|no)",
    "Issues:",
    "- .+",
)
TASK = (
    f"Task ID: {ID}",
    "Environment: debian:12",
    "State: started",
    "Workspace: /workspace",
    "Workspace seed: empty",
    "Execution mode: host_compat",
    "Resources: 1 vCPU / 1024 MiB",
)
RECORD: EnvironmentRecord = {
    "name": "debian:12",
    "version": "1.0.0",
    "description": "Debian 12 with Git.",
    "default_packages": ["bash", "git"],
    "distribution": "debian",
    "distribution_version": "12",
    "platform": "linux-x86_64",
    "oci_registry": "docker.io",
    "oci_repository": "library/buildpack-deps",
    "oci_reference": "bookworm-scm",
    "source_digest": DIGEST,
    "pinned_digest": "",
    "compatibility": "",
    "catalog_version": __version__,
    "installed": True,
    "cache_dir": "/cache",
    "install_dir": "/cache/linux-x86_64/debian_12-1.0.0",
    "install_manifest": "/cache/linux-x86_64/debian_12-1.0.0/environment.json",
}
PULLED: PulledEnvironment = {
    **RECORD,
    "kernel_image": "/runtime/vmlinux",
    "rootfs_image": "/cache/images/x.squashfs",
    "source": "bootstrap",
}
DETAIL = (
    "Version: 1.0.0",
    "Distribution: debian 12",
    "Installed: yes",
    "Cache dir: /cache",
    "Default packages: bash, git",
    "Description: Debian 12 with Git.",
    "Install dir: /cache/linux-x86_64/debian_12-1.0.0",
    "Install manifest: /cache/linux-x86_64/debian_12-1.0.0/environment.json",
)
SOURCE = "OCI source: docker.io/library/buildpack-deps:bookworm-scm"


def said(capfd: Capture, *words: str, code: int = 0) -> tuple[list[str], list[str]]:
    """The lines on stdout and on stderr of a command line that ends with *code*."""
    capfd.readouterr()
    assert run(list(words)) == code
    shown = capfd.readouterr()
    return shown.out.splitlines(), shown.err.splitlines()


def assert_in_order(promised: Sequence[str], lines: Sequence[str]) -> None:
    """Each promised line begins a line, in this order; others may stand between."""
    rest = iter(lines)
    for text in promised:
        assert any(re.match(text, line) for line in rest), f"{text!r} is not there, or out of order: {lines}"


def test_the_lines_of_doctor(no_vmm: Paths, capfd: Capture) -> None:
    out, err = said(capfd, "doctor", code=1)
    assert_in_order(DOCTOR, out)
    assert err == []


def test_the_lines_of_env_list_are_sorted_by_name(paths: Paths, capfd: Capture) -> None:
    out, _ = said(capfd, "env", "list")
    assert out[0] == f"Catalog version: {__version__}"
    assert [re.fullmatch(r"(\S+) \[(?:not )?installed\] .+", line)[1] for line in out[1:]] == sorted(  # type: ignore[index]
        entry.name for entry in CATALOG
    )


def test_the_lines_of_env_inspect(paths: Paths, capfd: Capture) -> None:
    out, _ = said(capfd, "env", "inspect", "debian:12")
    assert out[0] == "Environment: debian:12"
    assert_in_order(("Version: 1.0.0", "Distribution: debian 12", "Installed: no", "Cache dir: /", "Default pack"), out)
    assert re.fullmatch(r"OCI source: \S+/\S+:\S+", out[-1])


def test_the_lines_of_an_installed_and_of_a_pulled_environment() -> None:
    assert list(env._detail(RECORD)) == [*DETAIL, SOURCE]
    assert_in_order(
        (*DETAIL, "Kernel image: /runtime/vmlinux", "Rootfs image: /cache/images/x.squashfs", SOURCE),
        list(env._detail(RECORD, PULLED)),
    )


def test_the_lines_of_env_prune(paths: Paths, capfd: Capture) -> None:
    assert said(capfd, "env", "prune")[0] == ["Deleted 0 cached environment entries."]
    (paths.installed / "nobody_1-1.0.0").mkdir(parents=True)
    assert said(capfd, "env", "prune")[0] == ["Deleted 1 cached environment entry.", "- nobody_1-1.0.0"]


def test_the_lines_of_a_run(no_vmm: Paths, capfd: Capture) -> None:
    out, err = said(capfd, "run", "debian:12", HOST, "--", "echo out; echo err >&2; exit 3", code=3)
    assert out == ["out"]
    assert_in_order(
        (
            r"\[run\] phase=create environment=debian:12$",
            rf"\[run\] phase=start vm_id={ID}$",
            rf"\[run\] phase=execute vm_id={ID}$",
            "err$",
            r"\[run\] environment=debian:12 execution_mode=host_compat exit_code=3 duration_ms=\d+$",
        ),
        err,
    )


def test_the_lines_of_tasks(no_vmm: Paths, capfd: Capture) -> None:
    out, err = said(capfd, "task", "create", "debian:12", HOST)
    assert_in_order((*TASK, "Command count: 0"), out)
    assert not any(line.startswith("Last command:") for line in out)
    assert all(line.startswith("[task-create] ") for line in err)
    task = out[0].removeprefix("Task ID: ")
    assert "no logs found" in said(capfd, "task", "logs", task)[0][0]

    out, err = said(capfd, "task", "exec", task, "--", "echo out; echo err >&2; exit 3", code=3)
    assert out == ["out"]
    closing = (
        rf"\[task-exec\] task_id={task} sequence=1 cwd=/workspace execution_mode=host_compat exit_code=3 duration_"
    )
    assert_in_order(("err$", rf"{closing}ms=\d+$"), err)

    assert_in_order(
        (*TASK, "Command count: 1", r"Last command: .+ \(exit_code=3\)$"), said(capfd, "task", "status", task)[0]
    )
    out, err = said(capfd, "task", "logs", task)
    assert_in_order(
        (r"#1 exit_code=3 duration_ms=\d+ cwd=/workspace$", r"\$ echo out; echo err >&2; exit 3$", "out$"), out
    )
    assert err == ["err"]
    assert said(capfd, "task", "delete", task)[0] == [f"Deleted task: {task}"]


def test_the_line_of_a_push() -> None:
    line = task_sync._line(
        {
            "task_id": "0123456789ab",
            "execution_mode": "guest_vsock",
            "workspace_sync": {
                "mode": "directory",
                "source_path": "/home/you/src",
                "destination": "/workspace/src",
                "entry_count": 3,
                "bytes_written": 70,
            },
        }
    )
    assert line == (
        "[task-sync] task_id=0123456789ab mode=directory source=/home/you/src destination=/workspace/src entry_count=3"
        " bytes_written=70 execution_mode=guest_vsock"
    )


def test_the_version_is_one_line_on_stdout(capfd: Capture) -> None:
    assert said(capfd, "--version") == ([f"pyro {__version__}"], [])


@pytest.mark.parametrize(
    "words",
    [["nosuch"], ["env"], ["run", "--nosuch", "debian:12"], ["run", "debian:12", "--vcpu-count", "x", "--", "true"]],
    ids=["unknown verb", "no verb", "unknown option", "no number"],
)
def test_what_the_parser_refuses_is_told_on_stderr(words: list[str], capfd: Capture) -> None:
    out, err = said(capfd, *words, code=2)
    assert out == []
    assert any(line.startswith("Usage: pyro") for line in err)


def test_an_error_begins_with_its_mark_on_stderr(paths: Paths, capfd: Capture) -> None:
    out, err = said(capfd, "env", "inspect", "nosuch:1", code=1)
    assert (out, err[0]) == ([], "[error] unknown environment 'nosuch:1'")


@pytest.mark.parametrize("where", ["before", "between", "both"])
def test_options_stand_before_or_behind_the_environment(where: str, no_vmm: Paths, capfd: Capture) -> None:
    before = [HOST] if where in ("before", "both") else []
    behind = ["--timeout-seconds", "20", *([HOST] if where == "between" else [])] if where != "before" else []
    assert said(capfd, "run", *before, "debian:12", *behind, "--", "echo out")[0] == ["out"]


def test_one_word_is_the_shells_and_several_are_quoted(no_vmm: Paths, capfd: Capture) -> None:
    assert said(capfd, "run", "debian:12", HOST, "--", "echo $((6 * 7)); echo two")[0] == ["42", "two"]
    assert said(capfd, "run", "debian:12", HOST, "--", "printf", "%s|", "a b", "$HOME")[0] == ["a b|$HOME|"]


def test_a_run_without_a_command_says_what_is_missing(paths: Paths, capfd: Capture) -> None:
    assert said(capfd, "run", "debian:12", code=125)[1][0] == "[error] command is required after `--`"


def test_the_cache_is_shown_as_it_was_named(paths: Paths, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", os.fspath(Path("/tmp/pyro-contract cache")))
    assert "Cache dir: /tmp/pyro-contract cache" in said(capfd, "env", "inspect", "debian:12")[0]
