"""A session in the lab: its parts made, the machine booted and set up, pytest run for each user, results collected."""

import contextlib
import io
import json
import os
import shlex
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import OperationFailed, PyroError
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, storage
from pyro_mcp.host.locks import locked
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build, bundle, firecracker
from pyro_mcp.testing.lab import CHECKOUT, RESULTS, SUPPLIES
from pyro_mcp.testing.lab.checkout import archive
from pyro_mcp.testing.lab.guest_kernel import ensure_initramfs
from pyro_mcp.testing.lab.kept import kept
from pyro_mcp.testing.lab.machine import LabMachine, Parts, StreamSinks, boot_lab
from pyro_mcp.testing.lab.pulse import PATIENCE_SECONDS, pulse
from pyro_mcp.testing.lab.rootfs import ensure_rootfs
from pyro_mcp.testing.lab.site import ensure_site
from pyro_mcp.testing.lab.supplies import BUNDLE, contents, ensure_disk

ENVIRONMENT = "debian:12"
USERS = {"root": "", "user": "dev"}  # how a run is called, and who it is in the lab
PREPARE_SECONDS = 1800.0
SET_UP_SECONDS = 240.0
COLLECT_SECONDS = 120.0
RESULTS_MOST = 64 << 20
TIMED_OUT = 124

SET_UP = f"""
set -eu
mkdir -p {SUPPLIES}
for disk in /sys/block/vd*; do
  if [ "$(cat "$disk/serial")" = extra0 ]; then mount -o ro,nodev "/dev/${{disk##*/}}" {SUPPLIES}; fi
done
groupadd --force --system kvm
useradd --create-home --uid 1000 --groups kvm --shell /bin/bash dev
chgrp kvm /dev/kvm
chmod 0660 /dev/kvm
chmod 0666 /dev/net/tun /dev/fuse  # as on usual distributions
printf '#!/bin/sh\\nexec python3 -m pyro_mcp "$@"\\n' > /usr/local/bin/pyro
chmod 0755 /usr/local/bin/pyro
"""
BRING = f"""
set -eu
rm -rf {CHECKOUT} {RESULTS}
mkdir -p {CHECKOUT} {" ".join(f"{RESULTS}/{name}" for name in USERS)}
chown dev {RESULTS}/user
exec tar -C {CHECKOUT} --no-same-owner -xf -
"""
# The checkout is not the users' to write to; Hypothesis takes many seconds to load on an emulated CPU.
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
# A line for each test, begun with its name before it runs: where a lab stands still, it shows in which.
LINES = ("-v", "-o", "console_output_style=times")
SETTLE = f"exec python3 -m pyro_mcp.testing.lab.inside {' '.join(user or 'root' for user in USERS.values())}"


@dataclass(frozen=True, slots=True)
class Request:
    """What to do in the lab, within *seconds*: pytest with *arguments* for each of *users*, or *command* instead.

    *keep*: in a lab that goes on afterwards, and that the next run with *keep* takes again.
    """

    checkout: Path
    results: Path
    arguments: Sequence[str]
    users: Sequence[str]
    seconds: float
    command: str = ""
    keep: bool = False


def prepare(paths: Paths, settings: Settings, checkout: Path, progress: Progress) -> Parts:
    """Make what is missing of the lab. Raises what installations raise."""
    deadline = Deadline.after(PREPARE_SECONDS)
    runtime = build.ensure(paths, settings, progress, deadline)
    environment = Environments(paths, settings).ensure(ENVIRONMENT, progress=progress, deadline=deadline)
    vmm = firecracker.ensure(paths, progress, deadline)
    with locked(private_directory(paths.lab) / "lock", deadline):
        site = ensure_site(paths, checkout, deadline)
        files = contents(paths, runtime, environment, vmm, site)
        return Parts(
            kernel=runtime.kernel,
            initramfs=ensure_initramfs(paths, settings, runtime, progress, deadline),
            rootfs=ensure_rootfs(paths, settings, progress, deadline),
            supplies=ensure_disk(paths, files, deadline),
            agent=runtime.agent,
        )


@contextlib.contextmanager
def opened(
    paths: Paths, parts: Parts, *, seconds: float, keep_logs: Path | None = None, patience: float = PATIENCE_SECONDS
) -> Iterator[LabMachine]:
    """A new lab with supplies and users, ended when the block is left; its logs are then in *keep_logs*.

    *patience*: see ``pulse``.
    """
    running = boot_lab(paths, parts, seconds=seconds, owner=ProcessId.current(), keep_logs=keep_logs)
    with contextlib.ExitStack() as stack:
        stack.callback(running.end, keep_logs)
        set_up(running.machine)
        stack.enter_context(pulse(running, patience=patience))
        yield running.machine


@contextlib.contextmanager
def opened_again(paths: Paths, parts: Parts) -> Iterator[LabMachine]:
    """As ``opened``, but the lab that was kept before, and it is kept again."""
    with locked(paths.lab / "kept.lock", Deadline.after(0)), kept(paths, parts) as (running, new):
        if new:
            set_up(running.machine)
        with pulse(running):
            yield running.machine


def set_up(machine: LabMachine) -> None:
    """Mount the supplies, make the users, open the devices to them. Once per lab."""
    _must(machine, SET_UP)


def bring(machine: LabMachine, checkout: Path) -> None:
    """Bring *checkout* in, in place of the one before, and pyro's cache for each user."""
    _must(machine, BRING, stdin=archive(checkout))
    _must(machine, SETTLE)


def run(paths: Paths, settings: Settings, request: Request, progress: Progress, show: Callable[[bytes], None]) -> int:
    """Do what *request* says; 0 when all runs ended well, else 1. Their output goes to *show* and to files.

    Raises Busy when another run has the same results or the same kept lab.
    """
    with storage(f"preparing {request.results}"):
        request.results.parent.mkdir(parents=True, exist_ok=True)
    with locked(request.results.with_suffix(".lock"), Deadline.after(0)):
        return _run(paths, settings, request, progress, show)


def command_line(arguments: Sequence[str], name: str) -> str:
    """The shell command of the run *name* in the lab."""
    words = ["python3", "-m", "pytest", *PLUGINS, *LINES, f"--junit-xml={RESULTS}/{name}/junit.xml", *arguments]
    return f"cd {CHECKOUT} && exec {shlex.join(words)}"


def _run(paths: Paths, settings: Settings, request: Request, progress: Progress, show: Callable[[bytes], None]) -> int:
    remove_tree(request.results)
    with storage(f"preparing {request.results}"):
        request.results.mkdir(parents=True)
    begin = time.monotonic()
    parts = prepare(paths, settings, request.checkout, progress)
    progress.phase("lab-boot")
    seconds = request.seconds + SET_UP_SECONDS + COLLECT_SECONDS
    runs: list[dict[str, object]] = []
    with (
        opened_again(paths, parts) if request.keep else opened(paths, parts, seconds=seconds, keep_logs=request.results)
    ) as machine:
        progress.phase("lab-set-up")
        bring(machine, request.checkout)
        set_up_seconds = round(time.monotonic() - begin, 1)
        deadline = Deadline.after(request.seconds)
        with _collected(machine, request.results):
            for name in request.users:
                progress.phase("lab-run", user=name)
                runs.append(_run_one(machine, request, name, deadline, show))
    ok = bool(runs) and all(row["exit_code"] == 0 for row in runs)
    summary = {"ok": ok, "seconds": round(time.monotonic() - begin, 1), "set_up_seconds": set_up_seconds, "runs": runs}
    with storage(f"writing into {request.results}"):
        (request.results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if ok else 1


def _run_one(
    machine: LabMachine, request: Request, name: str, deadline: Deadline, show: Callable[[bytes], None]
) -> dict[str, object]:
    if deadline.passed:
        return {"user": name, "exit_code": TIMED_OUT, "timed_out": True, "seconds": 0.0}
    command = f"cd {CHECKOUT} && {request.command}" if request.command else command_line(request.arguments, name)
    logs = request.results / name
    with storage(f"preparing {logs}"):
        logs.mkdir()
        log = (logs / "output.log").open("wb")
    with log:
        ended = machine.run(
            command,
            seconds=deadline.remaining,
            sinks=StreamSinks(log, show),
            user=USERS[name],
            env={**_environment(), "LAB_RESULTS": f"{RESULTS}/{name}"},
        )
    return {
        "user": name,
        "exit_code": ended.exit_code,
        "timed_out": ended.timed_out,
        "seconds": round(ended.duration_ms / 1000, 1),
    }


def _environment() -> dict[str, str]:
    variables = {"PYTHONPATH": f"{CHECKOUT}/src:{SUPPLIES}/site"}
    if os.environ.get(bundle.VARIABLE):
        variables[bundle.VARIABLE] = f"{SUPPLIES}/{BUNDLE}"
    return variables


def _must(machine: LabMachine, command: str, *, stdin: bytes | None = None) -> None:
    sinks = CaptureSinks()
    ended = machine.run(command, seconds=SET_UP_SECONDS, sinks=sinks, env=_environment(), stdin=stdin)
    if ended.exit_code != 0:
        raise OperationFailed(
            "the lab could not be set up",
            remedy="It is a fault of the lab: look at src/pyro_mcp/testing/lab.",
            details=[*sinks.stdout.text().splitlines()[-20:], *sinks.stderr.text().splitlines()[-20:]],
        )


@contextlib.contextmanager
def _collected(machine: LabMachine, results: Path) -> Iterator[None]:
    """Collect what the block has left, also when it failed. Who is told to end does so at once, without results."""
    try:
        yield
    finally:
        if not isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
            with contextlib.suppress(PyroError):  # what went wrong before matters more
                _collect(machine, results)


def _collect(machine: LabMachine, results: Path) -> None:
    """Bring /results out, and what pyro kept of failed starts."""
    sinks = CaptureSinks(RESULTS_MOST)
    gather = "; ".join(
        f"cp -r ~{user or 'root'}/.local/state/pyro-mcp/failures {RESULTS}/{name}/ 2>/dev/null"
        for name, user in USERS.items()
    )
    machine.run(f"{gather}; exec tar -C {RESULTS} -cf - .", seconds=COLLECT_SECONDS, sinks=sinks)
    head, tail = sinks.stdout.parts()
    with (
        storage(f"collecting results in {results}"),
        contextlib.suppress(tarfile.TarError),
        tarfile.open(fileobj=io.BytesIO(head + tail)) as tar,
    ):
        tar.extractall(results, filter="data")
