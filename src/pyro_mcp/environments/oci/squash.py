"""A tar stream made here, packed by sqfstar."""

import contextlib
import os
import selectors
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from pyro_mcp.environments.bootstrap import SOURCE_DATE_EPOCH, packed_by
from pyro_mcp.environments.diagnosis import failure
from pyro_mcp.environments.pipeline import LOG_KEPT, Ended, Piped
from pyro_mcp.errors import EnvironmentFault, ProgramFailed
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

PIPE_BYTES = 1 << 20
BATCH = 1 << 18


def pack(
    name: str,
    write_all: Callable[[Callable[[bytes], object]], None],
    image: Path,
    on_bytes: Callable[[int], None],
    deadline: Deadline,
) -> None:
    """Let *write_all* write a tar stream, and have it packed into *image*. *name* is for messages.

    Raises NoSpace, EnvironmentFault, ProgramMissing; ProgramFailed at the deadline; what *write_all* raises.
    """
    argv = packed_by(image)
    command = [proc.find(argv[0]), *argv[1:]]
    with contextlib.ExitStack() as stack:
        reader, writer = os.pipe()
        feed = stack.enter_context(os.fdopen(reader, "rb", buffering=0))
        sink = stack.enter_context(os.fdopen(writer, "wb", buffering=0))
        nowhere = stack.enter_context(Path(os.devnull).open("wb", buffering=0))
        env = {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
        packer = stack.enter_context(proc.start(command, env=env, stdin=feed, stdout=nowhere))
        feed.close()
        feeder = stack.enter_context(_Feeder(sink, packer, on_bytes, deadline))
        try:
            write_all(feeder.write)
            feeder.flush()
        except BrokenPipeError:  # sqfstar ended early: what it said is the reason
            pass
        sink.close()
        feeder.read_to_end()
        if not until(lambda: packer.poll() is not None, deadline):
            raise ProgramFailed("packing the image took too long and was stopped")
        ended = Ended(int(packer.returncode), bytes(feeder.log))
    error = failure(name, Piped(None, ended, feeder.moved), str(image.parent))
    if error is not None:
        raise error
    if not image.exists():
        raise EnvironmentFault(f"sqfstar made no image of {name}", details=proc.tail(ended.log))


class _Feeder:
    """Writes to a program and reads what it says meanwhile, so that neither waits for the other for ever."""

    def __init__(
        self, sink: IO[bytes], packer: proc.Process, on_bytes: Callable[[int], None], deadline: Deadline
    ) -> None:
        self.moved = 0
        self.log = bytearray()
        self._sink = sink
        self._said = packer.stderr
        self._on_bytes = on_bytes
        self._deadline = deadline
        self._batch = bytearray()
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        os.set_blocking(self._sink.fileno(), False)
        self._selector.register(self._sink, selectors.EVENT_WRITE)
        if self._said is not None:
            self._selector.register(self._said, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def write(self, data: bytes) -> None:
        """Write *data*, or keep it for the next write. Raises BrokenPipeError when the program has ended."""
        self._batch += data
        if len(self._batch) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was kept."""
        with memoryview(bytes(self._batch)) as view:
            self._batch.clear()
            at = 0
            while at < len(view):
                self._check()
                ready = {key.fileobj for key, _ in self._selector.select(self._deadline.sooner(1.0).timeout)}
                if self._said in ready:
                    self._listen()
                if self._sink in ready:
                    at += os.write(self._sink.fileno(), view[at : at + PIPE_BYTES])
            self.moved += len(view)
        self._on_bytes(self.moved)

    def read_to_end(self) -> None:
        """Read what the program says until it says no more. The sink is closed."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._sink)
        while self._selector.get_map():
            self._check()
            if self._selector.select(self._deadline.sooner(1.0).timeout):
                self._listen()

    def _listen(self) -> None:
        if self._said is None:
            return
        data = os.read(self._said.fileno(), proc.CHUNK)
        if not data:
            self._selector.unregister(self._said)
        self.log += data
        del self.log[: max(0, len(self.log) - LOG_KEPT)]

    def _check(self) -> None:
        if self._deadline.passed:
            raise ProgramFailed("packing the image took too long and was stopped", details=proc.tail(bytes(self.log)))
