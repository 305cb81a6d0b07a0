"""How a command ended, wherever it ran, and the surroundings that every way of running shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.stdin import BytesStdin, DescriptorStdin, StdinSource

Sink = Callable[[bytes], None]


@dataclass(slots=True)
class CommandIO:
    """A command's surroundings.

    *on_stdout* and *on_stderr* get its output as it is produced, *on_started* is called once it is in the guest's
    hands. *stdin*: a descriptor, bytes, or ``None`` for no input. *captured* keeps the head and the tail of each
    stream.
    """

    control: Control
    on_stdout: Sink | None = None
    on_stderr: Sink | None = None
    on_started: Callable[[], None] | None = None
    stdin: int | bytes | None = None
    captured: CaptureSinks = field(default_factory=CaptureSinks)

    def __post_init__(self) -> None:
        if isinstance(self.stdin, bool) or not isinstance(self.stdin, int | bytes | None):
            raise InvalidRequest("stdin is a descriptor (a number) or bytes", remedy="Text: stdin=text.encode()")

    def source(self) -> StdinSource | None:
        """Where the command's standard input comes from."""
        if self.stdin is None:
            return None
        return BytesStdin(self.stdin) if isinstance(self.stdin, bytes) else DescriptorStdin(self.stdin)

    def started(self) -> None:
        """The command is on its way."""
        if self.on_started is not None:
            self.on_started()


class Tee:
    """Output sinks that keep what they get and pass a copy on."""

    def __init__(self, io: CommandIO) -> None:
        self._io = io

    def on_stdout(self, data: memoryview) -> None:
        """Take output of the command."""
        self._io.captured.on_stdout(data)
        if self._io.on_stdout is not None:
            self._io.on_stdout(bytes(data))

    def on_stderr(self, data: memoryview) -> None:
        """Take error output of the command."""
        self._io.captured.on_stderr(data)
        if self._io.on_stderr is not None:
            self._io.on_stderr(bytes(data))

    def on_lost(self, stdout: int, stderr: int) -> None:
        """Count bytes that never arrived."""
        self._io.captured.on_lost(stdout, stderr)


class Outcome(NamedTuple):
    """The end of a command. *causes* as in docs/protocol.md; *error* says why it could not be started."""

    exit_code: int
    timed_out: bool
    causes: tuple[str, ...]
    duration_ms: int
    error: str = ""
