"""Whatever is killed at any moment of a push and a command, nothing is half done, nothing is untrue, nothing stays.

PYRO_TEST_CHAOS_ROUNDS=100 (``make chaos``) is the long form.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_mcp.engine.store import Store
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

from .conftest import leftovers, start_pyro
from .task_steps import SETTLE, complete, history, keeper, tasks_end_with_the_test

pytestmark = pytest.mark.guest

ROUNDS = int(os.environ.get("PYRO_TEST_CHAOS_ROUNDS", "8"))
FILES = 300
LOOK = "cat ran 2>/dev/null; echo and; cd tree && find . -type f | wc -l && cat */*.txt | sort | uniq -c"
END_OF_GUEST = "kill -SEGV 1; sleep 100"  # the agent is PID 1 there, which the kernel shields from SIGKILL


@dataclass
class Chaos:
    """A task, what pushes to it and runs in it, and who may be killed meanwhile."""

    pyro: Pyro
    home: Paths
    trees: list[str]
    moments: random.Random
    task: str = ""
    number: int = 0

    def round(self, victim: str) -> None:
        """Push and run, and kill *victim* at some moment."""
        if not self.task:
            self.task = self.pyro.create_task(environment="debian:12", ttl_seconds=3600)["task_id"]
            self.pyro.push_task_sync(self.task, self.trees[0], dest="tree")
        self.number += 1
        push = start_pyro("task", "sync", "push", self.task, self.trees[self.number % 2], "--dest", "tree")
        command = f"echo {self.number} >> ran; echo {self.number}; sleep 0.{self.number % 10}; exit {self.code}"
        execute = start_pyro("task", "exec", self.task, "--", command)
        until(lambda: False, Deadline.after(self.moments.uniform(0.1, 1.8)))
        ends_machine = self.kill(victim, push, execute)
        for client in (push, execute):
            _, errors = client.communicate(timeout=60)
            assert b"Traceback" not in errors, errors.decode()
        assert until(lambda: complete(self.pyro, self.task), Deadline.after(SETTLE))
        if ends_machine:
            self.look_at_the_dead()
        else:
            self.look_at_the_living()

    @property
    def code(self) -> int:
        """The exit code of this round's command."""
        return self.number % 100 + 1

    def kill(self, victim: str, push: "subprocess.Popen[bytes]", execute: "subprocess.Popen[bytes]") -> bool:
        """Kill it; whether the machine ends of it."""
        running = Store(self.home.database).get(self.task).running
        assert running is not None
        victims: dict[str, Callable[[], object]] = {
            "pusher": push.kill,
            "client": execute.kill,
            "keeper": lambda: dead(keeper(self.home)),
            "launcher": lambda: dead(running.launcher),
            "vmm": lambda: dead(running.vmm),
            "agent": self.end_guest,
        }
        victims[victim]()
        return victim in ("launcher", "vmm", "agent")

    def end_guest(self) -> None:
        """Make the agent in the guest end."""
        with pytest.raises(PyroError):
            self.pyro.exec_task(self.task, command=END_OF_GUEST)

    def look_at_the_living(self) -> None:
        """One of the two trees, and a history that says what ran."""
        ran, _, tree = self.pyro.exec_task(self.task, command=LOOK)["stdout"].partition("and\n")
        assert tree.split() in ([str(FILES), str(FILES * 50), tag] for tag in ("old", "new"))
        numbers = ran.split()
        assert len(numbers) == len(set(numbers))
        for number, done in self.entries():
            assert done == (number in numbers), number

    def look_at_the_dead(self) -> None:
        """A cause, a true history, and nothing left after a deletion."""
        assert until(lambda: self.pyro.status_task(self.task)["state"] == "stopped", Deadline.after(SETTLE))
        assert self.pyro.status_task(self.task)["cause"]
        assert list(self.entries())
        self.pyro.delete_task(self.task)
        assert until(lambda: leftovers(self.home) == [], Deadline.after(SETTLE))
        self.task = ""

    def entries(self) -> Iterator[tuple[str, bool]]:
        """The numbers of the commands of this task, and whether each is said to have ended by itself, as it did."""
        for entry in history(self.pyro, self.task):
            word, number = entry["command"].split()[:2]
            if word != "echo":
                continue
            if entry["state"] == "done":
                assert (entry["exit_code"], entry["stdout"]) == (int(number) % 100 + 1, f"{number}\n")
            else:
                assert (entry["state"], bool(entry["reason"])) == ("lost", True)
            yield number, entry["state"] == "done"


def dead(process: ProcessId | None) -> None:
    """Kill it if it is there."""
    if process is not None:
        os.kill(process.pid, signal.SIGKILL)
        assert until(lambda: not process.alive, Deadline.after(SETTLE))


@pytest.fixture
def trees(tmp_path: Path) -> list[str]:
    """Two trees of the same names: old, new."""
    for tag in ("old", "new"):
        for number in range(FILES):
            place = tmp_path / tag / f"{number % 7}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.txt").write_text(f"{tag}\n" * 50)
    return [str(tmp_path / "old"), str(tmp_path / "new")]


def test_random_kills_of_everything_that_takes_part_leave_it_whole_and_true(home: Paths, trees: list[str]) -> None:
    moments = random.Random(5)
    # Four of six kills leave the machine as it is, in a row that has every kind early.
    kinds = ["pusher", "vmm", "client", "keeper", "agent", "pusher", "client", "launcher"]
    with tasks_end_with_the_test(home):
        chaos = Chaos(Pyro(), home, trees, moments)
        for number in range(ROUNDS):
            chaos.round(kinds[number % len(kinds)])
