"""What a command wrote, kept in files of bounded size: the beginning and the end, and between them what was cut.

A file grows as output comes. When the command has ended it is made read-only: that is how others know that it is
complete. Who takes over from a dead process goes on where the file ends.
"""

import os
import stat
from pathlib import Path

from pyro_mcp.engine.outcome import CommandIO, Tee
from pyro_mcp.host.files import storage, write_atomically
from pyro_mcp.paths import TaskPaths

HEAD_MOST = 1 << 20
TAIL_MOST = 1 << 20
COMPLETE = 0o400
GROWING = 0o600


class OutputFile:
    """One stream of one command."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = bytearray()
        self._cut = 0
        with storage(f"writing {path}"):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, GROWING)
            status = os.fstat(self._file)
        self.complete = not status.st_mode & stat.S_IWUSR
        self._written = status.st_size

    @property
    def offset(self) -> int:
        """How much of the stream's beginning is kept: where to go on."""
        return self._written

    @property
    def total(self) -> int:
        """Bytes of the stream so far, also those that are not kept."""
        return self._written + len(self._tail) + self._cut

    @property
    def truncated(self) -> bool:
        """Whether bytes of the stream are missing."""
        return self._cut > 0 or len(self._tail) > TAIL_MOST

    def add(self, data: bytes | memoryview) -> None:
        """Keep the next bytes of the stream."""
        if self.complete:
            return
        view = memoryview(data)
        room = HEAD_MOST - self._written
        if room > 0 and not self._tail and not self._cut:
            with storage(f"writing {self._path}"):
                self._append(view[:room])
            view = view[room:]
        self._tail += view
        if len(self._tail) > 2 * TAIL_MOST:
            self._trim()

    def lose(self, count: int) -> None:
        """So many bytes of the stream never arrived."""
        self._cut += count

    def finish(self) -> None:
        """Write the end, in one step, and mark the file as complete."""
        if self.complete:
            return
        self._trim()
        with storage(f"writing {self._path}"):
            if self._tail or self._cut:
                note = b"\n... %d bytes cut ...\n" % self._cut if self._cut else b""
                head = os.pread(self._file, self._written, 0)
                write_atomically(self._path, head + note + bytes(self._tail), mode=COMPLETE)
            else:
                os.fchmod(self._file, COMPLETE)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _append(self, view: memoryview) -> None:
        while view:
            count = os.write(self._file, view)
            self._written += count
            view = view[count:]

    def _trim(self) -> None:
        over = len(self._tail) - TAIL_MOST
        if over > 0:
            self._cut += over
            del self._tail[:over]


class Recorder(Tee):
    """Output sinks that keep both streams of a command in its task's files, and pass them on to *io*."""

    def __init__(self, paths: TaskPaths, sequence: int, io: CommandIO) -> None:
        super().__init__(io)
        self.stdout = OutputFile(paths.stdout(sequence))
        try:
            self.stderr = OutputFile(paths.stderr(sequence))
        except BaseException:
            self.stdout.close()
            raise

    def on_stdout(self, data: memoryview) -> None:
        """Take output of the command."""
        self.stdout.add(data)
        super().on_stdout(data)

    def on_stderr(self, data: memoryview) -> None:
        """Take error output of the command."""
        self.stderr.add(data)
        super().on_stderr(data)

    def on_lost(self, stdout: int, stderr: int) -> None:
        """Count bytes that never arrived."""
        self.stdout.lose(stdout)
        self.stderr.lose(stderr)
        super().on_lost(stdout, stderr)

    def finish(self) -> None:
        """Mark both files as complete."""
        self.stdout.finish()
        self.stderr.finish()

    def close(self) -> None:
        """Let go of the files."""
        self.stdout.close()
        self.stderr.close()


def read_output(path: Path) -> bytes:
    """What is kept of a stream; empty when the command never wrote, or when its file is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(HEAD_MOST + TAIL_MOST + 100)
