"""Tasks with real guests: made, filled, used by many at once, from the command line and from Python."""

import json
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.engine.store import Store
from pyro_mcp.errors import InvalidRequest, PyroError, UnknownJob, UnknownTask
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

from .conftest import Cli, leftovers, start_pyro
from .task_steps import SETTLE, complete, history, keeper, tasks_end_with_the_test

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True)
def tidy_end(home: Paths) -> Iterator[None]:
    with tasks_end_with_the_test(home):
        yield


@pytest.fixture
def pyro(home: Paths) -> Pyro:
    return Pyro()


@pytest.fixture
def task(pyro: Pyro) -> str:
    return pyro.create_task(environment="debian:12")["task_id"]


def project(directory: Path) -> Path:
    """A git repository with something like a virtual environment in it."""
    root = directory / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "note.txt").write_text("first\n")
    tool = root / ".venv" / "bin" / "tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\necho tool ran\n")
    tool.chmod(0o755)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def test_the_quick_tour(cli: Cli, home: Paths, tmp_path: Path) -> None:
    root = project(tmp_path)
    created = cli("task", "create", "debian:12", "--source-path", str(root), "--name", "tour", "--id-only")
    task_id = created.text.strip()
    assert (created.code, len(task_id)) == (0, 12), created.errors
    assert keeper(home) is not None
    assert cli("task", "exec", "tour", "--", ".venv/bin/tool; git status --short | sort").text == (
        "tool ran\n?? .venv/\n?? src/\n"
    )
    (root / "src" / "note.txt").write_text("second\n")
    pushed = cli("task", "sync", "push", "tour", str(root / "src"), "--dest", "src")
    assert pushed.code == 0, pushed.errors
    assert pushed.text.startswith(f"[task-sync] task_id={task_id} mode=directory source={root}/src destination=")
    seen = cli("task", "exec", task_id, "--", "cat", "src/note.txt")
    assert (seen.code, seen.text) == (0, "second\n")
    assert f"[task-exec] task_id={task_id} sequence=2 cwd=/workspace execution_mode=" in seen.errors
    status = json.loads(cli("task", "status", "tour", "--json").text)
    assert status["workspace_seed"]["mode"] == "directory"
    assert status["workspace_seed"]["source_path"] == str(root)
    assert (status["state"], status["command_count"]) == ("started", 2)
    assert status["last_command"]["command"] == "cat src/note.txt"
    assert status["usage"]["memory_used_bytes"] > 0
    logs = cli("task", "logs", "tour")
    assert "$ cat src/note.txt\nsecond\n" in logs.text
    deleted = cli("task", "delete", "tour")
    assert (deleted.code, deleted.text) == (0, f"Deleted task: {task_id}\n")
    assert cli("task", "status", "tour").code == 1


def test_exec_gives_the_commands_streams_and_exit_code(cli: Cli, task: str) -> None:
    ended = cli("task", "exec", "--env", "A=b c", task, "--", 'echo "$A"; pwd; cat; echo oops >&2; exit 7', stdin=b"")
    assert (ended.code, ended.text) == (7, "b c\n/workspace\n")
    assert ended.errors.startswith("oops\n[task-exec] ")
    assert cli("task", "exec", "-i", task, "--", "cat", stdin=b"\x00\xffin").stdout == b"\x00\xffin"
    late = cli("task", "exec", task, "--timeout-seconds", "1", "--", "echo part; sleep 60")
    assert (late.code, late.text) == (124, "part\n")
    assert cli("task", "exec", task, "--", "no-such-program").code == 127
    refused = cli("task", "exec", task, "--user", "nobody-here", "--", "true")
    assert (refused.code, "no such user" in refused.errors) == (125, True)
    assert cli("task", "exec", "no-such-task", "--", "true").code == 125
    entries = history(Pyro(), task)
    assert [entry["exit_code"] for entry in entries] == [7, 0, 124, 127, None]
    assert entries[2]["timed_out"]
    assert entries[2]["stdout"] == "part\n"
    assert entries[4]["state"] == "lost"
    assert "no such user" in entries[4]["reason"]


def test_the_workspace_is_there_again_when_somebody_removed_it(pyro: Pyro, task: str) -> None:
    pyro.exec_task(task, command="rmdir /workspace", cwd="/")
    assert pyro.exec_task(task, command="pwd")["stdout"] == "/workspace\n"
    with pytest.raises(PyroError):
        pyro.exec_task(task, command="pwd", cwd="/no/such/directory")


def test_sixteen_at_once_give_sixteen_entries(pyro: Pyro, task: str) -> None:
    results: list[str] = []

    def execute(number: int) -> None:
        results.append(pyro.exec_task(task, command=f"echo {number}")["stdout"])

    threads = [threading.Thread(target=execute, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"{number}\n" for number in range(16))
    assert sorted(results) == expected
    entries = history(pyro, task)
    assert sorted(entry["stdout"] for entry in entries) == expected
    assert {entry["exit_code"] for entry in entries} == {0}


def test_four_commands_at_once_run_at_the_same_time(task: str) -> None:
    # Each waits for the other three: one after the other, none would end.
    meet = "touch here.$0; until ls here.1 here.2 here.3 here.4 >/dev/null 2>&1; do sleep 0.1; done; sleep 3"
    words = [("task", "exec", task, "--timeout-seconds", "60", "--", "sh", "-c", meet, str(n)) for n in range(1, 5)]
    running = [start_pyro(*each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for each in words]
    assert [process.wait(90) for process in running] == [0] * 4


def test_more_commands_than_lines_all_run_and_others_can_still_ask(pyro: Pyro, task: str) -> None:
    jobs: list[str] = []
    threads = [
        threading.Thread(target=lambda: jobs.append(pyro.exec_task(task, command="sleep 8; echo x")["stdout"]))
        for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    assert until(lambda: pyro.status_task(task)["running_count"] == 24, Deadline.after(SETTLE))
    assert until(lambda: pyro.status_task(task)["usage"] is not None, Deadline.after(SETTLE))
    for thread in threads:
        thread.join()
    assert jobs == ["x\n"] * 24
    assert complete(pyro, task)


def test_two_processes_mix_the_command_line_and_the_sdk(cli: Cli, pyro: Pyro, tmp_path: Path) -> None:
    root = project(tmp_path)
    task = pyro.create_task(environment="debian:12", source_path=str(root))["task_id"]
    script = f"""
from pathlib import Path
from pyro_mcp import Pyro
pyro = Pyro()
Path({str(root)!r}, "src", "note.txt").write_text("from another process\\n")
pushed = pyro.push_task_sync({task!r}, {str(root / "src")!r}, dest="src")["workspace_sync"]
assert pushed["transferred_entries"] == 1
print(pyro.exec_task({task!r}, command="cat shared")["stdout"], end="")
"""
    assert cli("task", "exec", task, "--", "echo from the command line > shared").code == 0
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout == "from the command line\n"
    assert pyro.exec_task(task, command=".venv/bin/tool; cat src/note.txt")["stdout"] == (
        "tool ran\nfrom another process\n"
    )
    told = json.loads(cli("task", "logs", task, "--json").text)
    assert told["count"] == 3
    assert told["entries"] == pyro.logs_task(task)["entries"]
    for name in ("stdout_file", "stderr_file"):
        path = Path(told["entries"][1][name])
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert Path(told["entries"][1]["stdout_file"]).read_text() == "from the command line\n"


def test_a_detached_job_can_be_attached_to_waited_for_and_signalled(
    cli: Cli, pyro: Pyro, home: Paths, task: str
) -> None:
    ends = (pyro.status_task(task)["expires_at"], Store(home.database).get(task).expires_at)
    started = cli("task", "exec", task, "--detach", "--", "for i in 1 2 3; do echo $i; sleep 1; done; exit 9")
    job = started.text.strip()
    assert (started.code, len(job)) == (0, 16), started.errors
    attached = cli("task", "attach", task, job)
    assert (attached.code, attached.text) == (9, "1\n2\n3\n")
    again = cli("task", "attach", task, job)
    assert (again.code, again.text) == (9, "1\n2\n3\n")
    assert cli("task", "wait", task, job).code == 9
    endless = pyro.start_task_job(task, command="trap 'echo bye; exit 5' USR1; while :; do sleep 0.1; done")["job_id"]
    assert cli("task", "wait", task, endless, "--timeout-seconds", "0.5").code == 124
    assert pyro.status_task(task)["running_count"] == 1
    assert cli("task", "signal", task, endless, "USR1").code == 0
    waited = pyro.wait_task_job(task, endless, timeout_seconds=SETTLE)
    assert (waited["state"], waited["exit_code"]) == ("done", 5)
    assert pyro.attach_task_job(task, endless)["stdout"] == "bye\n"
    assert pyro.signal_task_job(task, endless)["delivered"] is False
    with pytest.raises(UnknownJob):
        pyro.wait_task_job(task, "0" * 16)
    with pytest.raises(InvalidRequest):
        pyro.signal_task_job(task, endless, 99)
    assert (pyro.status_task(task)["expires_at"], Store(home.database).get(task).expires_at) == ends


def test_several_may_follow_one_command(pyro: Pyro, task: str) -> None:
    first = start_pyro("task", "exec", task, "--", "echo begun; sleep 3; echo done; exit 4")
    assert first.stdout is not None
    assert first.stdout.readline() == b"begun\n"
    job = history(pyro, task)[0]["job_id"]
    others = [start_pyro("task", "attach", task, job) for _ in range(2)]
    for process in others:
        assert process.communicate(timeout=60)[0] == b"begun\ndone\n"
        assert process.returncode == 4
    assert first.communicate(timeout=60)[0] == b"done\n"
    assert first.returncode == 4


def test_leaving_an_attached_job_leaves_it_running(pyro: Pyro, task: str) -> None:
    job = pyro.start_task_job(task, command="echo begun; sleep 4; echo done")["job_id"]
    process = start_pyro("task", "attach", task, job)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert pyro.wait_task_job(task, job, timeout_seconds=SETTLE)["exit_code"] == 0
    assert pyro.attach_task_job(task, job)["stdout"] == "begun\ndone\n"


def test_long_output_is_bounded_in_the_history_and_says_so(pyro: Pyro, task: str) -> None:
    pyro.exec_task(task, command="seq 1 500000", timeout_seconds=120)
    job = pyro.start_task_job(task, command="seq 1 500000")["job_id"]  # nobody attends: the oldest bytes are gone
    pyro.wait_task_job(task, job)
    size = sum(len(f"{number}\n") for number in range(1, 500_001))
    for entry in history(pyro, task):
        assert entry["stdout_truncated"]
        assert entry["stdout_bytes"] == size
        assert "bytes cut ...\n" in entry["stdout"]
        assert entry["stdout"].endswith("499999\n500000\n")
        assert len(entry["stdout"]) < (2 << 20) + 100


def test_a_closed_output_pipe_ends_the_command(task: str, pyro: Pyro) -> None:
    process = start_pyro("task", "exec", task, "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait(30) == 141
    process.stderr.close()
    assert until(lambda: complete(pyro, task), Deadline.after(SETTLE))
    assert history(pyro, task)[0]["causes"] == ["signal"]


def test_logs_can_be_followed(pyro: Pyro, task: str) -> None:
    follower = start_pyro("task", "logs", task, "--follow")
    assert follower.stdout is not None
    pyro.exec_task(task, command="echo one")
    job = pyro.start_task_job(task, command="echo two; sleep 1; echo three")["job_id"]
    pyro.wait_task_job(task, job)
    text = ""
    while "\n#2 exit_code=0 " not in text:
        line = follower.stdout.readline()
        assert line, text
        text += line.decode()
    pyro.delete_task(task)
    assert follower.communicate(timeout=60)[0] == b""
    assert follower.returncode == 0
    assert "$ echo one\none\n#1 exit_code=0 " in text
    assert "two\nthree\n" in text


def test_a_name_is_unique_and_can_be_used_everywhere(cli: Cli, pyro: Pyro) -> None:
    made = pyro.create_task(environment="debian:12", name="twin", labels={"kind": "test"})
    assert made["labels"] == {"kind": "test"}
    with pytest.raises(InvalidRequest, match="twin"):
        pyro.create_task(environment="debian:12", name="twin")
    assert [record["name"] for record in pyro.list_tasks()["tasks"]] == ["twin"]
    assert "twin" in cli("task", "list").text
    assert pyro.extend_task("twin", ttl_seconds=5000)["remaining_seconds"] > 4990
    assert pyro.delete_task("twin")["task_id"] == made["task_id"]
    with pytest.raises(UnknownTask):
        pyro.status_task("twin")


@pytest.mark.parametrize("source", ["no-such-directory", "file.zip"])
def test_a_wrong_source_is_refused_before_anything_starts(home: Paths, pyro: Pyro, tmp_path: Path, source: str) -> None:
    (tmp_path / "file.zip").write_bytes(b"PK")
    with pytest.raises(InvalidRequest, match=source):
        pyro.create_task(environment="debian:12", source_path=tmp_path / source)
    assert pyro.list_tasks()["count"] == 0
    assert leftovers(home) == []
