"""The loop that carries a job's streams: one poll over the session, standard input and the control."""

import time
from collections.abc import Callable
from typing import Protocol

from pyro_mcp.errors import GuestProtocol, Interrupted
from pyro_mcp.guest.answers import INTEGER_MOST, read_object, refusal
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.control import Cancel, Control, Resize
from pyro_mcp.guest.faults import LineWanted, LinkLost, Progress
from pyro_mcp.guest.link import READABLE
from pyro_mcp.guest.outcome import Exit, read_exit, read_started
from pyro_mcp.guest.patience import Cancelling, Patience
from pyro_mcp.guest.stdin import StdinSource
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline

OFFSET_SIZE = 8
YIELD_AFTER = 1.0  # seconds of silence after which a line may go to somebody who waits for one


class OutputSinks(Protocol):
    """Where output goes, as it comes.

    The bytes given are only valid during the call. What a sink raises ends the loop.
    """

    def on_stdout(self, data: memoryview) -> None:
        """Bytes of standard output; with a terminal, of everything."""

    def on_stderr(self, data: memoryview) -> None:
        """Bytes of standard error."""

    def on_lost(self, stdout: int, stderr: int) -> None:
        """So many bytes of each stream are gone: written while no client was attached, beyond the buffer."""


class _Output:
    """One output stream: the place reached in it, and its sink."""

    def __init__(self, name: str, offset: int, sink: Callable[[memoryview], None]) -> None:
        self.name = name
        self.offset = offset
        self._sink = sink

    def skip(self, payload: memoryview) -> int:
        """Go to where *payload* starts; the bytes that are missing before it.

        Raises GuestProtocol for what was there already.
        """
        if len(payload) < OFFSET_SIZE:
            raise GuestProtocol(f"the guest sent {self.name} without an offset")
        start = int.from_bytes(payload[:OFFSET_SIZE], "big")
        if start < self.offset:
            raise GuestProtocol(f"the guest sent bytes of {self.name} again")
        if start > INTEGER_MOST:
            raise GuestProtocol(f"the guest sent an impossible offset in {self.name}")
        missing = start - self.offset
        self.offset = start
        return missing

    def write(self, payload: memoryview) -> None:
        """Hand the bytes behind the offset to the sink."""
        data = payload[OFFSET_SIZE:]
        if data:
            self._sink(data)
            self.offset += len(data)


class JobStream:
    """One exec or attach on one session, from its request to EXIT."""

    def __init__(
        self,
        session: Session,
        start: Progress,
        sinks: OutputSinks,
        *,
        stdin: StdinSource | None,
        control: Control | None,
        deadline: Deadline,
        grace: float,
    ) -> None:
        self._session = session
        self._job = start.job
        self._sinks = sinks
        self._stdout = _Output("standard output", start.stdout_offset, sinks.on_stdout)
        self._stderr = _Output("standard error", start.stderr_offset, sinks.on_stderr)
        self._stdin = stdin
        self._stdin_bytes = start.stdin_bytes
        self._control = control
        self._patience = Patience(deadline, start.ends)
        self._cancelling = Cancelling(grace)
        self._credit = 0
        self._started = False
        self._held: list[tuple[FrameType, bytes]] = []
        self._exit: Exit | None = None
        self._yield_at = Deadline.after(YIELD_AFTER)

    @property
    def progress(self) -> Progress:
        """How far the streams have come."""
        out, err = self._stdout.offset, self._stderr.offset
        return Progress(self._job, out, err, self._stdin_bytes, self._patience.job_end)

    def run(self, request: bytes, *, running: bool) -> Exit:
        """Send *request* and carry the streams until the job's end; *running*: a job is there already."""
        self._obey()
        if self._cancelling.asked and not running:
            raise Interrupted("the command was cancelled before it started")
        self._session.queue(FrameType.REQUEST, request)
        try:
            self._take_frames()  # there are none from a guest that keeps to its turn
            self._exchange()
            while self._exit is None:
                self._turn()
        except LinkLost as lost:
            if self._cancelling.asked:
                raise Interrupted("the command was cancelled; the link broke before its end") from lost
            lost.progress = self.progress
            raise
        if self._cancelling.asked:
            raise Interrupted("the command was cancelled")
        return self._exit

    def _turn(self) -> None:
        """Wait for one event and handle it."""
        self._patience.check()
        self._send_signal(self._cancelling.due())
        self._give_way()
        if self._wants_input() and self._stdin is not None and self._stdin.descriptor is None:
            self._send_input()
        ready = self._session.wait(self._moment(), self._others())
        if self._control is not None and self._control.fileno() in ready:
            self._obey()
        if self._stdin is not None and self._stdin.descriptor in ready:
            self._send_input()
        if -1 in ready or self._session.pending:
            self._exchange()

    def _moment(self) -> Deadline:
        return Deadline(min(self._patience.end.at, self._cancelling.next.at, self._yield_at.at))

    def _give_way(self) -> None:
        """Leave the line to somebody who waits for one: a job without input that is silent needs it for nothing."""
        if not self._yield_at.passed:
            return
        self._yield_at = Deadline.after(YIELD_AFTER)
        if self._started and self._stdin is None and not self._cancelling.asked and self._session.wanted():
            raise LineWanted("the line was given to somebody who waited for one")

    def _others(self) -> list[tuple[int, int]]:
        others = []
        if self._control is not None:
            others.append((self._control.fileno(), READABLE))
        if self._wants_input() and self._stdin is not None and self._stdin.descriptor is not None:
            others.append((self._stdin.descriptor, READABLE))
        return others

    def _wants_input(self) -> bool:
        """Whether input may be read: there is credit for it, and what was read before is on its way."""
        return self._stdin is not None and self._credit > 0 and not self._session.pending

    def _send_input(self) -> None:
        if self._stdin is None:
            return
        data = self._stdin.read(self._credit)
        if data is None:
            return
        if data:
            self._session.queue(FrameType.STDIN, data)
            self._credit -= len(data)
            self._stdin_bytes += len(data)
        else:
            self._session.queue(FrameType.STDIN_EOF)
            self._stdin = None

    def _obey(self) -> None:
        """Carry out the orders of the control. Raises Interrupted when the job is only left."""
        if self._control is None:
            return
        self._control.check_left()
        for order in self._control.take():
            if isinstance(order, Cancel):
                self._send_signal(self._cancelling.ask())
            elif isinstance(order, Resize):
                size = order.rows.to_bytes(2, "big") + order.columns.to_bytes(2, "big")
                self._send(FrameType.RESIZE, size)
            else:
                self._send_signal(order.number)

    def _send_signal(self, number: int | None) -> None:
        if number is not None:
            self._send(FrameType.SIGNAL, number.to_bytes(4, "big"))

    def _send(self, kind: FrameType, payload: bytes) -> None:
        """Send to the job, once there is one."""
        if self._started:
            self._session.queue(kind, payload)
        else:
            self._held.append((kind, payload))

    def _exchange(self) -> None:
        """Send and receive what can be without waiting; no whole frame stays behind."""
        self._session.advance()
        self._take_frames()

    def _take_frames(self) -> None:
        while self._exit is None and (frame := self._session.take()) is not None:
            self._handle(frame.kind, frame.payload)

    def _handle(self, kind: FrameType, payload: memoryview) -> None:
        if kind is FrameType.ERROR:
            raise refusal(payload)
        if self._started == (kind is FrameType.RESPONSE):
            raise GuestProtocol(f"the guest sent {kind.name} out of turn")
        if kind is FrameType.STDOUT:
            self._output(self._stdout, payload)
        elif kind is FrameType.STDERR:
            self._output(self._stderr, payload)
        elif kind is FrameType.CREDIT:
            self._more_credit(payload)
        elif kind is FrameType.EXIT:
            self._exit = read_exit(read_object(payload, "EXIT"))
        else:
            self._start(payload)

    def _start(self, payload: memoryview) -> None:
        started = read_started(read_object(payload, "exec"))
        if started.job != self._job:
            raise GuestProtocol("the guest answered for another job")
        self._started = True
        self._credit = started.stdin_credit
        for kind, held in self._held:
            self._session.queue(kind, held)
        self._held.clear()

    def _output(self, output: _Output, payload: memoryview) -> None:
        begin = time.monotonic()
        self._yield_at = Deadline.after(YIELD_AFTER)
        missing = output.skip(payload)
        if missing:
            self._sinks.on_lost(*((missing, 0) if output is self._stdout else (0, missing)))
        output.write(payload)
        self._patience.excuse(time.monotonic() - begin)

    def _more_credit(self, payload: memoryview) -> None:
        if len(payload) != 4:
            raise GuestProtocol("the guest sent a wrong CREDIT")
        self._credit += int.from_bytes(payload, "big")
