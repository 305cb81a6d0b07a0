"""Whatever dies (a client, the keeper, the VMM), a task's history has no hole and no lie, and nothing leaks."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pyro_mcp.errors import MachineFault, PyroError, TaskExpired, UnknownTask, WrongState
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

from .conftest import Cli, leftovers, start_pyro
from .task_steps import SETTLE, complete, history, keeper, tasks_end_with_the_test, vmm

pytestmark = pytest.mark.guest

ROUNDS = int(os.environ.get("PYRO_TEST_CHAOS_ROUNDS", "12"))


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


def test_kill_minus_nine_of_a_client_leaves_the_command_running_and_its_end_recorded(pyro: Pyro, task: str) -> None:
    client = start_pyro("task", "exec", task, "--", "echo begun; sleep 3; echo done; exit 6")
    assert client.stdout is not None
    assert client.stdout.readline() == b"begun\n"
    client.kill()
    client.communicate()
    assert history(pyro, task)[0]["state"] == "running"
    assert until(lambda: complete(pyro, task), Deadline.after(SETTLE))
    entry = history(pyro, task)[0]
    assert (entry["state"], entry["exit_code"], entry["stdout"]) == ("done", 6, "begun\ndone\n")


def test_a_killed_keeper_comes_back_with_the_next_command(cli: Cli, home: Paths, pyro: Pyro) -> None:
    pyro.create_task(environment="debian:12", name="idle", idle_seconds=4)
    first = keeper(home)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: not first.alive, Deadline.after(SETTLE))
    assert cli("task", "list").code == 0
    second = keeper(home)
    assert second is not None
    assert second != first

    def state() -> str:
        return pyro.list_tasks()["tasks"][0]["state"]

    assert until(lambda: state() == "expired", Deadline.after(SETTLE))


def test_a_vmm_that_dies_is_told_with_its_cause_and_the_history_stays(home: Paths, pyro: Pyro, task: str) -> None:
    pyro.exec_task(task, command="echo before")
    errors: list[Exception] = []

    def execute() -> None:
        try:
            pyro.exec_task(task, command="echo begun; sleep 100")
        except PyroError as error:
            errors.append(error)

    thread = threading.Thread(target=execute)
    thread.start()
    assert until(lambda: "begun" in history(pyro, task)[-1].get("stdout", ""), Deadline.after(SETTLE))
    os.kill(vmm(home, task).pid, signal.SIGKILL)
    thread.join(30)
    assert isinstance(errors[0], MachineFault)
    assert "SIGKILL" in str(errors[0])
    status = pyro.status_task(task)
    assert (status["state"], status["ended_reason"]) == ("stopped", "vmm")
    assert "SIGKILL" in str(status["cause"])
    with pytest.raises(WrongState, match="SIGKILL"):
        pyro.exec_task(task, command="true")
    first, second = history(pyro, task)
    assert first["stdout"] == "before\n"
    assert (second["state"], second["stdout"]) == ("lost", "begun\n")
    assert "SIGKILL" in second["reason"]


def test_an_idle_task_expires_says_so_and_keeps_its_history(cli: Cli, home: Paths, pyro: Pyro) -> None:
    task = pyro.create_task(environment="debian:12", idle_seconds=2)["task_id"]
    pyro.exec_task(task, command="echo kept; sleep 5")  # a command that runs is no idleness
    machine = vmm(home, task)

    def expired() -> bool:
        return pyro.list_tasks()["tasks"][0]["state"] == "expired"

    ended = time.time()
    assert until(expired, Deadline.after(SETTLE))
    record = pyro.list_tasks()["tasks"][0]
    assert record["ended_reason"] == "idle"
    assert record["ended_at"] is not None
    assert 2 <= record["ended_at"] - ended + 0.5 < 2 + 4
    assert until(lambda: not machine.alive and leftovers(home) == [], Deadline.after(SETTLE))
    with pytest.raises(TaskExpired, match="expired at"):
        pyro.exec_task(task, command="true")
    refused = cli("task", "exec", task, "--", "true")
    assert (refused.code, "expired at" in refused.errors) == (125, True)
    assert history(pyro, task)[0]["stdout"] == "kept\n"
    logs = cli("task", "logs", task)
    assert (logs.code, "kept\n" in logs.text) == (0, True)


def test_a_detached_job_keeps_its_task_from_being_idle(pyro: Pyro) -> None:
    task = pyro.create_task(environment="debian:12", idle_seconds=1)["task_id"]
    pyro.start_task_job(task, command="sleep 5; echo done")
    assert not until(lambda: pyro.list_tasks()["tasks"][0]["state"] == "expired", Deadline.after(4))
    assert until(lambda: pyro.list_tasks()["tasks"][0]["state"] == "expired", Deadline.after(SETTLE))
    entry = history(pyro, task)[0]
    assert (entry["exit_code"], entry["stdout"]) == (0, "done\n")


def test_a_task_can_be_given_less_and_more_time_and_its_launcher_obeys(home: Paths, pyro: Pyro) -> None:
    task = pyro.create_task(environment="debian:12", ttl_seconds=61)["task_id"]
    machine = vmm(home, task)
    began = time.time()
    assert pyro.extend_task(task, ttl_seconds=7200)["expires_at"] > began + 7100
    assert pyro.status_task(task)["remaining_seconds"] > 7000
    assert pyro.extend_task(task, ttl_seconds=60)["remaining_seconds"] <= 60
    end = pyro.status_task(task)["expires_at"]
    with pytest.raises(TaskExpired, match="expired at"):
        pyro.exec_task(task, command="sleep 100", timeout_seconds=200)
    assert abs(time.time() - end) < 2 + 5
    assert until(lambda: not machine.alive, Deadline.after(2))
    entry = history(pyro, task)[0]
    assert (entry["state"], "expired at" in entry["reason"]) == ("lost", True)


def test_a_task_may_be_deleted_while_a_command_runs(home: Paths, pyro: Pyro, task: str) -> None:
    client = start_pyro("task", "exec", task, "--", "echo begun; sleep 100")
    assert client.stdout is not None
    assert client.stdout.readline() == b"begun\n"
    pyro.delete_task(task)
    _, errors = client.communicate(timeout=30)
    assert client.returncode == 125
    assert b"was deleted while the command ran" in errors
    assert b"Traceback" not in errors
    assert leftovers(home) == []
    with pytest.raises(UnknownTask):
        pyro.logs_task(task)


def test_kill_minus_nine_in_the_middle_of_create_leaves_nothing(home: Paths, pyro: Pyro) -> None:
    moments = random.Random(11)
    pyro.create_task(environment="debian:12", name="first")  # there is a keeper, and a template
    for _ in range(ROUNDS // 2):
        process = start_pyro("task", "create", "debian:12")
        until(lambda: False, Deadline.after(moments.uniform(0.1, 2.0)))
        process.kill()
        process.communicate()

    def settled() -> bool:
        return all(record["state"] != "creating" for record in pyro.list_tasks()["tasks"])

    assert until(settled, Deadline.after(SETTLE))
    tasks = {record["task_id"] for record in pyro.list_tasks()["tasks"]}
    assert until(lambda: set(leftovers(home)) == tasks, Deadline.after(SETTLE))
