"""Two programs joined by a pipe, with pyro in the middle counting what passes."""

import contextlib
import os
import selectors
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyro_mcp.errors import ProgramFailed
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

LOG_KEPT = 64 << 10
LINE_MOST = 4096
MOVE_MOST = 1 << 20
CHECK_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: exit status (negative: killed by that signal), and the last it wrote on stderr."""

    status: int
    log: bytes


@dataclass(frozen=True, slots=True)
class Piped:
    """The result. *producer* is ``None`` when the consumer failed first, and the producer was stopped for it."""

    producer: Ended | None
    consumer: Ended
    moved_bytes: int


def pipe(
    producer: Sequence[str],
    consumer: Sequence[str],
    deadline: Deadline,
    *,
    env: Mapping[str, str],
    stdin: IO[bytes],
    on_line: Callable[[str], None],
    on_bytes: Callable[[int], None],
) -> Piped:
    """Run ``producer | consumer`` to the end of both.

    *stdin* is the producer's; *on_line* gets each line it writes on stderr, *on_bytes* the bytes moved so far.
    Raises ProgramMissing before either is started, ProgramFailed at the deadline. Neither outlives the call.
    """
    first = [proc.find(producer[0]), *producer[1:]]
    second = [proc.find(consumer[0]), *consumer[1:]]
    with contextlib.ExitStack() as stack:
        reader, writer = os.pipe()
        feed = stack.enter_context(os.fdopen(reader, "rb", buffering=0))
        sink = stack.enter_context(os.fdopen(writer, "wb", buffering=0))
        nowhere = stack.enter_context(Path(os.devnull).open("wb", buffering=0))
        taking = stack.enter_context(proc.start(second, env=env, stdin=feed, stdout=nowhere))
        feed.close()
        giving = stack.enter_context(proc.start(first, env=env, stdin=stdin))
        flow = _Flow(_opened(giving.stdout), sink, on_bytes)
        said = _Log(_opened(giving.stderr), on_line)
        answered = _Log(_opened(taking.stderr), None)
        refused = _serve(flow, said, answered, lambda: _accepted(taking, deadline), nowhere, deadline)
        given = None if refused else Ended(_status(giving, deadline), bytes(said.kept))
        return Piped(given, Ended(_status(taking, deadline), bytes(answered.kept)), flow.moved)


def _opened(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the program was started without this pipe")
    return stream


def _status(process: proc.Process, deadline: Deadline) -> int:
    """The exit status of a program that has closed its pipes."""
    if not until(lambda: process.poll() is not None, deadline):
        raise _too_long()
    return int(process.returncode)


def _accepted(taking: proc.Process, deadline: Deadline) -> bool:
    return _status(taking, deadline) == 0


def _too_long(log: bytes = b"") -> ProgramFailed:
    return ProgramFailed("making the image took too long and was stopped", details=proc.tail(log))


def _serve(
    flow: "_Flow", said: "_Log", answered: "_Log", accepted: Callable[[], bool], nowhere: IO[bytes], deadline: Deadline
) -> bool:
    """Serve the three streams to their ends; ``True`` when the consumer has failed before the data ended.

    A reader of tar streams stops at the archive's end mark. What follows is padding, and it must go somewhere.
    """
    with selectors.DefaultSelector() as selector:
        for part in (flow, said, answered):
            part.watch(selector)
        while selector.get_map():
            if deadline.passed:
                raise _too_long(bytes(said.kept))
            for key, _ in selector.select(deadline.sooner(CHECK_INTERVAL).timeout):
                key.data.serve(selector)
            if answered.ended and not flow.ended and flow.sink is not nowhere:
                if not accepted():
                    return True
                flow.divert(selector, nowhere)
    return False


class _Flow:
    """The producer's output on its way to the consumer, moved inside the kernel."""

    def __init__(self, source: IO[bytes], sink: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0
        self.ended = False
        self._on_bytes = on_bytes
        self._watched: IO[bytes] | None = None

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for data."""
        self._watch(selector, self.source)

    def divert(self, selector: selectors.BaseSelector, sink: IO[bytes]) -> None:
        """Let what is still to come go to *sink*."""
        self.sink = sink
        self._watch(selector, self.source)

    def serve(self, selector: selectors.BaseSelector) -> None:
        """Move what is there. When the consumer is behind, wait for room; when it has gone, for what its end means."""
        if self._watched is not self.source:
            self._watch(selector, self.source)
            return
        try:
            moved = os.splice(self.source.fileno(), self.sink.fileno(), MOVE_MOST, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            self._watch(selector, self.sink)
            return
        except BrokenPipeError:
            self._watch(selector, None)
            return
        self.moved += moved
        self._on_bytes(self.moved)
        if not moved:
            self.ended = True
            self._watch(selector, None)
            self.sink.close()

    def _watch(self, selector: selectors.BaseSelector, stream: IO[bytes] | None) -> None:
        if self._watched is not None:
            selector.unregister(self._watched)
        if stream is not None:
            selector.register(stream, selectors.EVENT_READ if stream is self.source else selectors.EVENT_WRITE, self)
        self._watched = stream


class _Log:
    """What a program writes on stderr: its end is kept, its lines are handed on."""

    def __init__(self, source: IO[bytes], on_line: Callable[[str], None] | None) -> None:
        self.kept = bytearray()
        self.ended = False
        self._source = source
        self._on_line = on_line
        self._line = b""

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Wait for data."""
        selector.register(self._source, selectors.EVENT_READ, self)

    def serve(self, selector: selectors.BaseSelector) -> None:
        """Read what is there."""
        data = os.read(self._source.fileno(), proc.CHUNK)
        if not data:
            selector.unregister(self._source)
            self.ended = True
        self.kept += data
        del self.kept[: max(0, len(self.kept) - LOG_KEPT)]
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LINE_MOST:]
        if self._on_line is not None:
            for line in lines:
                self._on_line(line.decode(errors="replace"))
