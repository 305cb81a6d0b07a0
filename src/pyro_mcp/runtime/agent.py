"""Our static guest program, shipped inside the package."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host.files import storage
from pyro_mcp.runtime.manifest import Identity

AGENT = Path(__file__).parents[1] / "_bin" / "pyro-agent"
AGENT_MOST = 64 << 20
REMEDY = "In a checkout run `make setup`, which compiles the agent; else install the package again."


class Agent(NamedTuple):
    """The binary as it was read: its digest (64 hex digits), and what tells later that it is that file."""

    path: Path
    sha256: str
    identity: Identity


def agent_identity(path: Path) -> Identity:
    """What tells the agent from another file; raises RuntimeBroken when it is missing or not executable."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RuntimeBroken(f"the guest agent is missing: {path}", remedy=REMEDY) from error
    except OSError as error:
        raise RuntimeBroken(f"the guest agent cannot be read: {path}: {error.strerror}", remedy=REMEDY) from error
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise RuntimeBroken(f"the guest agent is not an executable file: {path}", remedy=REMEDY)
    return Identity.of(status)


def find_agent(path: Path = AGENT) -> Agent:
    """The agent with its digest; raises RuntimeBroken when it is missing, not executable or damaged."""
    return read_agent(path)[0]


def read_agent(path: Path = AGENT) -> tuple[Agent, bytes]:
    """The agent and its content, read from one and the same file."""
    agent_identity(path)
    with storage(f"reading {path}"), path.open("rb") as stream:
        identity = Identity.of(os.fstat(stream.fileno()))
        data = stream.read(AGENT_MOST + 1)
    if data[:4] != b"\x7fELF" or not 64 <= len(data) <= AGENT_MOST or len(data) != identity.size:
        raise RuntimeBroken(f"the guest agent is damaged: {path}", remedy=REMEDY)
    return Agent(path, hashlib.sha256(data).hexdigest(), identity), data
