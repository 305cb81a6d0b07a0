"""How a task's machine ended: what its launcher left, in words."""

import signal
from dataclasses import dataclass

from pyro_mcp.engine.evidence import gather
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.errors import StorageFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import read_json
from pyro_mcp.host.wait import until
from pyro_mcp.paths import MachinePaths

LAST_WORDS_SECONDS = 4.0  # the launcher reads what is left in the VMM's pipes before it tells of the end
CONSOLE_LINES = 3


@dataclass(frozen=True, slots=True)
class Ending:
    """*by_ttl*: the launcher ended it at the end of its time. *at*: Unix seconds, if known."""

    by_ttl: bool
    cause: str
    at: float | None


def ending_of(paths: MachinePaths, machine: MachineRecord) -> Ending:
    """Why the VMM of *machine*, which runs no more, has ended."""
    running = machine.running
    if running is not None:
        until(lambda: paths.end.exists() or not running.launcher.alive, Deadline.after(LAST_WORDS_SECONDS))
    try:
        told = read_json(paths.end)
    except StorageFault:
        told = None
    if told is None:
        return Ending(by_ttl=False, cause=_with_console(paths, "the VM ended; its launcher was killed"), at=None)
    unix_ms = told.get("unix_ms")
    at = unix_ms / 1000 if isinstance(unix_ms, int) else None
    if told.get("reason") == "ttl":
        return Ending(by_ttl=True, cause="", at=at)
    return Ending(by_ttl=False, cause=_with_console(paths, _words(told)), at=at)


def _words(told: dict[str, object]) -> str:
    if told.get("reason") == "stop":
        return "the VM was stopped from outside pyro"
    number = told.get("signal")
    if isinstance(number, int) and number:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = ", perhaps by the host for lack of memory" if number == signal.SIGKILL else ""
        return f"the VM was killed ({name}{hint})"
    return f"the VM ended by itself (status {told.get('exit_code')}): its guest went off, or panicked"


def _with_console(paths: MachinePaths, cause: str) -> str:
    lines = [line.strip() for line in gather(paths) if "panic" in line.lower() or "boot failed" in line.lower()]
    return f"{cause}; {'; '.join(lines[-CONSOLE_LINES:])}" if lines else cause
