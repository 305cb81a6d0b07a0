"""The one door to other programs: argument lists, a clean environment, a deadline, bounded output."""

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from pyro_mcp.errors import HostFault, ProgramFailed, ProgramMissing
from pyro_mcp.host.deadline import Deadline

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 4 << 20
TAIL_LINES = 20
STOP_GRACE = 2.0
CHUNK = 1 << 16
Process = subprocess.Popen[bytes]
# What programs that reach the network or write temporary files need from the caller's environment.
INHERITED = (
    "HOME",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


class Completed(NamedTuple):
    """A program that ended: exit status (negative: killed by that signal), and what it wrote, each to its limit."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


def search_path() -> str:
    """Where programs are looked for: the user's PATH, then the usual places, for users without sbin in theirs."""
    return f"{os.environ.get('PATH', '')}:{PATH}"


def find(program: str) -> str:
    """The path of *program*; raises ProgramMissing naming the package that provides it."""
    path = shutil.which(program, path=search_path())
    if path is None:
        from pyro_mcp.host.packages import package_of

        package = package_of(program)
        remedy = f"Run `pyro setup`, or install the package {package}." if package else None
        raise ProgramMissing(f"{program} is not installed", remedy=remedy)
    return path


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A predictable environment: a fixed PATH and locale, proxies, home, and *extra*."""
    env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    env |= {name: os.environ[name] for name in INHERITED if name in os.environ}
    return env | dict(extra or {})


def describe(argv: Sequence[str]) -> str:
    """The command as one line that can be pasted into a shell."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    deadline: Deadline,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    check: bool = True,
    on_progress: Callable[[], None] | None = None,
) -> Completed:
    """Run a program to its end.

    *stdin* and *stdout* are files (default: empty, and captured up to 4 MiB; further output is read and dropped).
    *on_progress* is called about four times a second while it runs. With *check* a non-zero status raises
    ProgramFailed with the tail of stderr. The program's whole process group is killed when the deadline comes or
    the caller is interrupted.
    """
    command = [find(argv[0]), *argv[1:]]
    with start(command, env=env, cwd=cwd, stdin=stdin, stdout=stdout or subprocess.PIPE) as process:
        output, errors = _collect(process, deadline, on_progress)
    result = Completed(tuple(argv), process.returncode, output, errors)
    if check and result.status != 0:
        raise ProgramFailed(
            f"{argv[0]} failed with status {result.status}",
            details=[f"$ {describe(argv)}", *tail(errors or output)],
        )
    return result


def tail(data: bytes, lines: int = TAIL_LINES) -> list[str]:
    """The last *lines* lines of a program's output, safe to print, each at most 400 characters."""
    text = data.decode(errors="backslashreplace").splitlines()[-lines:]
    return [
        "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in line)[:400] for line in text
    ]


@contextlib.contextmanager
def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
) -> Iterator[Process]:
    """Start a program in a session of its own; when the block is left, its whole group is proved gone."""
    process = _spawn(
        argv,
        env=clean_environment(env),
        cwd=cwd,
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        _end(process)


@contextlib.contextmanager
def start_streaming(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, with_stdin: bool) -> Iterator[Process]:
    """Start a program whose pipes the caller serves itself; stdin does not block, *env* is all the program gets."""
    process = _spawn(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
        yield process
    finally:
        _end(process)


def spawn_detached(argv: Sequence[str], *, pass_fds: Sequence[int], env: Mapping[str, str] | None = None) -> Process:
    """Start a program that may outlive this process: own session, no terminal, only *pass_fds* inherited.

    Its stdout and stderr go nowhere: a program started so reports through a descriptor. The caller owns the process.
    """
    return _spawn(
        argv,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=pass_fds,
    )


def _spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: int,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ProgramMissing(f"{argv[0]} is not installed") from error
    except OSError as error:
        raise HostFault(f"cannot start {argv[0]}: {error.strerror}", details=[f"$ {describe(argv)}"]) from error


def _collect(process: Process, deadline: Deadline, on_progress: Callable[[], None] | None) -> tuple[bytes, bytes]:
    """Read both pipes to their ends, keeping at most OUTPUT_LIMIT of each, then wait for the program."""
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    with selectors.DefaultSelector() as selector:
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map():
            _check(process, deadline)
            timeout = deadline.sooner(0.25).timeout
            for key, _ in selector.select(timeout):
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                store = kept[key.data]
                store += data
                if len(store) > OUTPUT_LIMIT:  # the tail is what explains a failure
                    del store[: len(store) - OUTPUT_LIMIT]
            if on_progress is not None:
                on_progress()
    try:
        process.wait(deadline.timeout)
    except subprocess.TimeoutExpired:
        _check(process, deadline)
    return bytes(kept["stdout"]), bytes(kept["stderr"])


def _check(process: Process, deadline: Deadline) -> None:
    if deadline.passed:
        argv = [str(word) for word in process.args] if isinstance(process.args, list) else []
        raise ProgramFailed(f"{Path(argv[0]).name} took too long and was stopped", details=[f"$ {describe(argv)}"])


def _end(process: Process) -> None:
    """Stop what is left of the program's group; the leader is reaped, the pipes are closed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
