"""Running commands in machines: the one-shot run, and the one command of a machine that was made before."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.outcome import CommandIO, Outcome, Tee
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.errors import CapacityReached, InvalidRequest, LinkTimeout, MachineExpired, MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.host.stopwatch import stage
from pyro_mcp.model import CommandSpec, MachineSpec, NetworkReport, RunResult, check_machine_id, check_words

if TYPE_CHECKING:
    from pyro_mcp.drivers.base import RunningVmm
    from pyro_mcp.engine.pool import Pool
    from pyro_mcp.engine.publish.ports import Listener
    from pyro_mcp.guest.client import ChannelOpener

TIMED_OUT = 124
AFTER_EXEC = "post_exec_cleanup"


class Runs:
    """Commands in machines that are deleted afterwards."""

    def __init__(self, context: Context, pool: "Pool | None" = None) -> None:
        self._context = context
        self._machines = Machines(context)
        self._pool = pool

    def run(
        self,
        machine: MachineSpec,
        command: CommandSpec,
        io: CommandIO,
        progress: Progress,
        publish: Iterable[str] = (),
    ) -> RunResult:
        """One command in a machine of its own. Whatever happens, the machine is gone afterwards.

        Raises PortUnavailable before anything is started.
        """
        wanted = check_words("publish", publish)
        if not wanted:
            return self._run(machine, command, io, progress, ())
        from pyro_mcp.engine.publish.in_run import listening
        from pyro_mcp.engine.publish.ports import Port

        with listening([Port.parse(text) for text in wanted]) as listeners:
            return self._run(machine, command, io, progress, listeners)

    def _run(
        self,
        machine: MachineSpec,
        command: CommandSpec,
        io: CommandIO,
        progress: Progress,
        listeners: Sequence["Listener"],
    ) -> RunResult:
        wanted = machine.lasting(command.timeout_seconds)
        record = self._pool.take(wanted) if self._pool else None
        with stage("create"):
            if record is None:
                progress.phase("create", environment=machine.environment)
                record = self._create(wanted, progress)
        try:
            if record.state != "started":
                progress.phase("start", vm_id=record.machine_id)
                record = self._machines.start(record.machine_id, progress=progress)
            for listener in listeners:
                port = listener.port
                progress.phase("publish", address=port.place, guest_port=port.guest_port)
            progress.phase("execute", vm_id=record.machine_id)
            with stage("command"):
                outcome = self._execute(record, command, io, listeners)
            network = self._report(record)
        finally:
            with stage("clean-up"):
                self._machines.delete(record.machine_id)
            if self._pool:
                self._pool.refill()
        return _result(record, command, io, outcome, network, listeners)

    def _create(self, machine: MachineSpec, progress: Progress) -> MachineRecord:
        try:
            return self._machines.create(machine, progress=progress, with_caller=True)
        except CapacityReached:
            # A machine that waits for work must not keep one from working.
            if self._pool is None or not self._pool.give_back():
                raise
        return self._machines.create(machine, progress=progress, with_caller=True)

    def execute_and_delete(self, machine_id: str, command: CommandSpec, io: CommandIO) -> RunResult:
        """One command in a started machine, which is then deleted. Raises WrongState when another command has it."""
        self._machines.living(check_machine_id(machine_id))
        record = self._context.store.move(machine_id, "executing", allowed=("started",))
        try:
            outcome = self._execute(record, command, io)
            network = self._report(record)
        finally:
            self._machines.discard(record)
        return _result(record, command, io, outcome, network)

    def _report(self, record: MachineRecord) -> NetworkReport | None:
        if record.network is None:
            return None
        from pyro_mcp.engine.network_view import report_of  # a run without a network does not wait for it

        return report_of(self._context.paths, record)

    def _execute(
        self, record: MachineRecord, command: CommandSpec, io: CommandIO, listeners: Sequence["Listener"] = ()
    ) -> Outcome:
        if record.running is None:
            if listeners:
                raise InvalidRequest(
                    "publishing needs a guest; host-compat has none", remedy="Programs listen on this host themselves."
                )
            from pyro_mcp.engine import host_compat

            return host_compat.execute(command, self._context.paths.machine(record.machine_id).directory, io)
        from pyro_mcp.engine.commands import outcome_of, run_job
        from pyro_mcp.guest.outcome import new_job

        command = self._context.environments.prepared(record.environment, command)
        limit = Deadline.after(command.timeout_seconds)
        channels = self._machines.channels(record)
        try:
            with _forwarded(listeners, channels, record.running):
                return outcome_of(run_job(channels, command, new_job(), io=io, sinks=Tee(io)))
        except LinkTimeout:
            if not limit.passed:
                raise
            # The time is over and the guest did not even say so: it is ended with its machine.
            return Outcome(
                TIMED_OUT,
                timed_out=True,
                causes=("timeout", "unresponsive"),
                duration_ms=round(command.timeout_seconds * 1000),
            )
        except MachineFault as error:
            if record.expired:
                raise MachineExpired(
                    f"the machine reached its time to live ({record.ttl_seconds} s) while the command ran"
                ) from error
            raise


def _forwarded(
    listeners: Sequence["Listener"], channels: "ChannelOpener", running: "RunningVmm"
) -> contextlib.AbstractContextManager[None]:
    if not listeners:
        return contextlib.nullcontext()
    from pyro_mcp.engine.publish.in_run import forwarded

    return forwarded(listeners, channels, running)


def _result(
    record: MachineRecord,
    command: CommandSpec,
    io: CommandIO,
    outcome: Outcome,
    network: NetworkReport | None,
    listeners: Sequence["Listener"] = (),
) -> RunResult:
    out, err = io.captured.stdout, io.captured.stderr
    return {
        "vm_id": record.machine_id,
        "environment": record.environment,
        "environment_version": record.environment_version,
        "command": command.command,
        "stdout": out.text(),
        "stderr": err.text(),
        "stdout_truncated": out.truncated,
        "stderr_truncated": err.truncated,
        "stdout_bytes": out.total,
        "stderr_bytes": err.total,
        "exit_code": outcome.exit_code,
        "duration_ms": outcome.duration_ms,
        "timed_out": outcome.timed_out,
        "causes": list(outcome.causes),
        "start_error": outcome.error,
        "execution_mode": record.execution_mode,
        "isolation": record.isolation,
        "network": network,
        "published_ports": [listener.port.public() for listener in listeners],
        "cleanup": {"vm_id": record.machine_id, "deleted": True, "reason": AFTER_EXEC},
    }
