"""What is known about a machine that failed: bounded tails of its console and its VMM's log."""

from pathlib import Path

from pyro_mcp.host.proc import tail
from pyro_mcp.paths import MachinePaths

TAIL_BYTES = 16 << 10
LINES = 15


def gather(paths: MachinePaths) -> list[str]:
    """Evidence lines for an error; a log that cannot be read is left out, never raised."""
    lines: list[str] = []
    for title, log in (("console", paths.console), ("vmm", paths.vmm_log)):
        text = tail(_end(log), LINES)
        lines += [f"{title}: {line}" for line in text if line.strip()]
    return lines


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            return stream.read(TAIL_BYTES)
    except OSError:
        return b""
