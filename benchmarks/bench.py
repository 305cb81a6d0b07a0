"""Measure pyro, side by side with containers on the same root filesystem: ``make bench``.

Every round runs each subject once, so that whatever else the host does hits all of them alike; ratios are of medians.
``--json FILE`` also writes the figures. docs/performance.md explains them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cpu import counter
from files import PAIRS, measure_files
from network import measure_network
from rivals import Rival, rivals
from series import Series, table

from pyro_mcp import Pyro, __version__
from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

ENVIRONMENT = "debian:12"
COMMAND = ("git", "--version")
PYRO = (sys.executable, "-m", "pyro_mcp")
CONCURRENT = (10, 25)
IDLE_MACHINES = 4
FILE_ROUNDS = 3
NETWORK_ROUNDS = 5
IDLE_SETTLE_SECONDS = 2.0
IDLE_SECONDS = 5.0
RUN_SECONDS = 300.0


class Bench:
    """The figures of one session."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.series: dict[str, Series] = {}
        self.facts: dict[str, Any] = {}

    def add(self, name: str, milliseconds: float) -> None:
        """One value of the series *name*."""
        self.series.setdefault(name, Series(name)).values.append(milliseconds)

    def timed(self, name: str, action: Callable[[], object]) -> float:
        """Do *action* once; its time counts for *name*."""
        began = time.perf_counter()
        action()
        taken = (time.perf_counter() - began) * 1000
        self.add(name, taken)
        return taken


def environment() -> dict[str, str]:
    """What every subject gets. Python may keep compiled modules: an installed pyro has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def command(argv: tuple[str, ...], env: dict[str, str] | None = None) -> str:
    """Run a program to its end; its stderr. A failure ends the benchmark."""
    done = subprocess.run(
        argv,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=RUN_SECONDS,
        check=False,
        env=environment() | (env or {}),
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed with {done.returncode}:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stderr.decode(errors="replace")


def pyro_run(bench: Bench) -> None:
    """One `pyro run`, and its own account of where the time went."""
    errors = ""

    def run() -> None:
        nonlocal errors
        errors = command((*PYRO, "run", "--timings", ENVIRONMENT, "--", *COMMAND))

    bench.timed("pyro run", run)
    line = next(line for line in errors.splitlines() if "timings_ms" in line)
    for word in line.split("timings_ms ")[1].split():
        name, _, value = word.partition("=")
        bench.add(f"  stage {name}", float(value))


def measure_commands(bench: Bench, pyro: Pyro, others: list[Rival]) -> None:
    """Whole commands, and runs by the SDK in this process."""
    for _ in range(bench.rounds):
        for rival in others:
            bench.timed(rival.name, lambda argv=rival.argv: command(argv))  # type: ignore[misc]
        pyro_run(bench)
        bench.timed("SDK run", lambda: pyro.run_in_vm(environment=ENVIRONMENT, command=" ".join(COMMAND)))
        bench.timed("pyro --version", lambda: command((*PYRO, "--version")))
    cold = {"PYRO_NO_TEMPLATES": "1"}
    for _ in range(max(2, bench.rounds // 4)):
        bench.timed("pyro run, cold boot", lambda: command((*PYRO, "run", ENVIRONMENT, "--", *COMMAND), cold))


def measure_pool(bench: Bench) -> None:
    """Runs by a process that keeps machines ready."""
    with Pyro(pool=1) as pyro:
        pyro.run_in_vm(environment=ENVIRONMENT, command="true")
        for _ in range(bench.rounds):
            pyro.wait_for_pool(60)
            bench.timed(
                "SDK run, warm pool", lambda: pyro.run_in_vm(environment=ENVIRONMENT, command=" ".join(COMMAND))
            )


def measure_live(bench: Bench, pyro: Pyro) -> None:
    """Commands in a machine that runs."""
    task = pyro.create_task(environment=ENVIRONMENT, ttl_seconds=600)["task_id"]
    try:
        pyro.exec_task(task, command="true")
        for _ in range(bench.rounds * 2):
            durations: list[int] = []

            def execute(durations: list[int] = durations) -> None:
                durations.append(pyro.exec_task(task, command="true")["duration_ms"])

            taken = bench.timed("exec true, live task", execute)
            bench.add("exec true, beyond the guest's own time", taken - durations[0])
    finally:
        pyro.delete_task(task)


def measure_concurrent(bench: Bench, others: list[Rival], rounds: int) -> None:
    """Many runs at once, each a process of its own; for the rivals as many as decide something."""
    argv: tuple[str, ...] = (*PYRO, "run", ENVIRONMENT, "--", *COMMAND)
    subjects = [("pyro run", argv, count) for count in CONCURRENT]
    subjects += [(rival.name, rival.argv, CONCURRENT[0]) for rival in others]
    for _ in range(rounds):
        for name, words, count in subjects:
            with ThreadPoolExecutor(count) as pool:

                def all_at_once(
                    pool: ThreadPoolExecutor = pool, words: tuple[str, ...] = words, count: int = count
                ) -> None:
                    list(pool.map(command, [words] * count))

                bench.timed(f"{name}, {count} at once", all_at_once)


def measure_processor(bench: Bench, others: list[Rival], rounds: int) -> None:
    """Processor time of one run, over all its processes: what bounds how many fit beside each other."""
    subjects: list[tuple[str, tuple[str, ...]]] = [("pyro run", (*PYRO, "run", ENVIRONMENT, "--", *COMMAND))]
    subjects += [(rival.name, rival.argv) for rival in others]
    with counter() as used:
        if used is None:
            print("processor time is left out: this user may make no cgroup", file=sys.stderr)
            return
        for _ in range(rounds):
            for name, argv in subjects:
                before = used.milliseconds()
                command(used.charged(argv))
                bench.add(f"{name}, processor time", used.milliseconds() - before)


@contextmanager
def idle_machines(pyro: Pyro) -> Iterator[list[str]]:
    """Machines that were started and have nothing to do."""
    with ExitStack() as stack:
        machines = []
        for _ in range(IDLE_MACHINES):
            machine = pyro.create_vm(environment=ENVIRONMENT)["vm_id"]
            stack.callback(pyro.delete_vm, machine)
            pyro.start_vm(machine)
            machines.append(machine)
        yield machines


def measure_memory(bench: Bench, pyro: Pyro) -> None:
    """What an idle machine takes of the host's memory: its share (PSS), and what is resident of it (RSS), in MiB."""
    with idle_machines(pyro) as machines:
        store = Store(Paths.of_user().database)
        totals = {"Pss": 0.0, "Rss": 0.0}
        for machine in machines:
            running = store.get(machine).running
            if running is None:
                sys.exit("a machine ended while it was measured")
            for process in (running.vmm, running.launcher):
                for name in totals:
                    totals[name] += memory_kib(process.pid, name) / 1024
        bench.facts["idle_machine_pss_mib"] = round(totals["Pss"] / IDLE_MACHINES, 1)
        bench.facts["idle_machine_rss_mib"] = round(totals["Rss"] / IDLE_MACHINES, 1)


def measure_idle(bench: Bench, pyro: Pyro) -> None:
    """What a machine with nothing to do takes of a processor."""
    with idle_machines(pyro) as machines:
        until(lambda: False, Deadline.after(IDLE_SETTLE_SECONDS))
        pids = [running.vmm.pid for one in machines if (running := Store(Paths.of_user().database).get(one).running)]
        before = sum(processor_ticks(pid) for pid in pids)
        until(lambda: False, Deadline.after(IDLE_SECONDS))
        used = (sum(processor_ticks(pid) for pid in pids) - before) / os.sysconf("SC_CLK_TCK")
    bench.facts["idle_machine_processor_percent"] = round(100 * used / IDLE_SECONDS / len(pids), 2)


def processor_ticks(pid: int) -> int:
    """Processor time of a process, proc(5)'s utime and stime."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def memory_kib(pid: int, name: str) -> int:
    """A total of proc(5)'s smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def describe_host(bench: Bench, pyro: Pyro) -> None:
    """What the figures were measured on."""
    report = pyro.doctor()
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    bench.facts |= {
        "pyro": __version__,
        "cpus": os.cpu_count(),
        "processor": model,
        "kernel": platform.release(),
        "driver": report["driver"].get("name"),
        "accelerator": report["driver"].get("accelerator"),
        "load_before": os.getloadavg()[0],
        "rounds": bench.rounds,
    }


def ratios(bench: Bench) -> dict[str, float]:
    """Medians divided by medians; what is not measured here is left out."""
    pairs = {
        "pyro run / podman run": ("pyro run", "podman run (runc)"),
        "SDK run / podman run": ("SDK run", "podman run (runc)"),
        "SDK run, warm pool / podman run": ("SDK run, warm pool", "podman run (runc)"),
        "pyro run / bwrap": ("pyro run", "bwrap"),
        "cold boot / pyro run": ("pyro run, cold boot", "pyro run"),
        **PAIRS,
        "processor time, pyro run / podman run": ("pyro run, processor time", "podman run (runc), processor time"),
    } | {
        f"{name}, {count} at once / one": (f"{name}, {count} at once", name)
        for name in ("pyro run", "podman run (runc)")
        for count in CONCURRENT
    }
    return {
        name: round(bench.series[one].median / bench.series[other].median, 2)
        for name, (one, other) in pairs.items()
        if one in bench.series and other in bench.series
    }


def main() -> None:
    """Measure, print, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="runs of each subject (default 12)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="leave out the many at once, files and network")
    parser.add_argument("--files", action="store_true", help="measure the files alone")
    parser.add_argument("--network", action="store_true", help="measure the network alone")
    options = parser.parse_args()
    bench, pyro = Bench(options.rounds), Pyro()
    describe_host(bench, pyro)
    if options.files:
        measure_files(bench.add, FILE_ROUNDS)
    elif options.network:
        measure_network(bench.add, bench.facts, NETWORK_ROUNDS)
    else:
        measure_all(bench, pyro, quick=options.quick)
    bench.facts["load_after"] = os.getloadavg()[0]
    found = ratios(bench)
    print(table(bench.series.values(), found, bench.facts))
    if options.json:
        figures = {name: one.as_dict() for name, one in bench.series.items()}
        options.json.write_text(json.dumps({"host": bench.facts, "ms": figures, "ratios": found}, indent=2) + "\n")


def measure_all(bench: Bench, pyro: Pyro, *, quick: bool) -> None:
    """Everything; *quick*: but the many at once, the files and the network."""
    pulled = pyro.pull_environment(ENVIRONMENT, template=True)
    with tempfile.TemporaryDirectory(prefix="pyro-bench-") as place:
        others = rivals(Path(pulled["rootfs_image"]), Path(place), COMMAND)
        measure_commands(bench, pyro, others)
        measure_processor(bench, others, max(2, bench.rounds // 2))
        if not quick:
            measure_concurrent(bench, others, max(2, bench.rounds // 4))
    measure_pool(bench)
    measure_memory(bench, pyro)
    measure_idle(bench, pyro)
    if not quick:
        measure_live(bench, pyro)
        measure_files(bench.add, FILE_ROUNDS)
        measure_network(bench.add, bench.facts, NETWORK_ROUNDS)


if __name__ == "__main__":
    main()
