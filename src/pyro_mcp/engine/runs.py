"""Running commands in machines: the one-shot run, and the one command of a machine that was made before."""

from pyro_mcp.engine import host_compat
from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.outcome import CommandIO, Outcome, Tee
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.errors import LinkTimeout, MachineExpired, MachineFault
from pyro_mcp.guest.execution import attach, execute
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.guest.outcome import Exit, new_job
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import CommandSpec, MachineSpec, RunResult, check_machine_id

LINK_SECONDS = 30.0
REATTACHES = 5
TIMED_OUT = 124
AFTER_EXEC = "post_exec_cleanup"


class Runs:
    """Commands in machines that are deleted afterwards."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._machines = Machines(context)

    def run(self, machine: MachineSpec, command: CommandSpec, io: CommandIO, progress: Progress) -> RunResult:
        """One command in a machine of its own. Whatever happens, the machine is gone afterwards."""
        progress.phase("create", environment=machine.environment)
        record = self._machines.create(machine, progress=progress, with_caller=True)
        try:
            progress.phase("start", vm_id=record.machine_id)
            record = self._machines.start(record.machine_id, progress=progress)
            progress.phase("execute", vm_id=record.machine_id)
            outcome = self._execute(record, command, io)
        finally:
            self._machines.delete(record.machine_id)
        return _result(record, command, io, outcome)

    def execute_and_delete(self, machine_id: str, command: CommandSpec, io: CommandIO) -> RunResult:
        """One command in a started machine, which is then deleted. Raises WrongState when another command has it."""
        self._machines.living(check_machine_id(machine_id))
        record = self._context.store.move(machine_id, "executing", allowed=("started",))
        try:
            outcome = self._execute(record, command, io)
        finally:
            self._machines.delete(machine_id)
        return _result(record, command, io, outcome)

    def _execute(self, record: MachineRecord, command: CommandSpec, io: CommandIO) -> Outcome:
        if record.execution_mode == "host_compat":
            return host_compat.execute(command, self._context.paths.machine(record.machine_id).directory, io)
        limit = Deadline.after(command.timeout_seconds)
        try:
            return _outcome(self._in_guest(record, command, io))
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

    def _in_guest(self, record: MachineRecord, command: CommandSpec, io: CommandIO) -> Exit:
        """Start the command once, and come back to it when the link breaks while the machine lives."""
        channels = self._machines.channels(record)
        sinks, source, job = Tee(io), io.source(), new_job()
        try:
            with channels.open(Deadline.after(LINK_SECONDS)) as session:
                io.started()
                return execute(
                    session, command, job, sinks=sinks, stdin=source, control=io.control, deadline=Deadline.never()
                )
        except LinkLost as error:
            lost = error
        for _ in range(REATTACHES):
            if lost.progress is None:
                break
            try:
                with channels.open(Deadline.after(LINK_SECONDS)) as session:
                    return attach(
                        session, lost.progress, sinks=sinks, stdin=source, control=io.control, deadline=Deadline.never()
                    )
            except LinkLost as error:
                lost = error
        raise lost


def _outcome(end: Exit) -> Outcome:
    return Outcome(end.exit_code, end.timed_out, end.causes, end.duration_ms, end.error)


def _result(record: MachineRecord, command: CommandSpec, io: CommandIO, outcome: Outcome) -> RunResult:
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
        "execution_mode": record.execution_mode,
        "isolation": record.isolation,
        "cleanup": {"vm_id": record.machine_id, "deleted": True, "reason": AFTER_EXEC},
    }
