"""Find the runtime, or build it from Debian's kernel package and our agent.

In the directory ``paths.runtimes``: ``current.json`` says which runtime is in use and for which agent file; a
directory per runtime, named by the digest of all it was built from; the kernel package, so that another agent
needs no network. What is being made has a name that starts with ``.partial-`` and counts for nothing: the
next builder removes it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from pyro_mcp.config import Settings
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, read_json
from pyro_mcp.host.locks import locked
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.agent import AGENT, agent_identity
from pyro_mcp.runtime.manifest import DIGEST, INDEX, Runtime, load, reason_not_intact
from pyro_mcp.runtime.recipe import RECIPE


class RuntimeReport(NamedTuple):
    """What doctor shows. *state* is ``ready``, or built at next use: ``absent``, ``stale``, ``damaged``."""

    state: str
    directory: Path | None
    digest: str
    kernel_version: str
    kernel_package: str
    problems: tuple[str, ...]


def ensure(
    paths: Paths,
    settings: Settings,
    progress: Progress,
    deadline: Deadline,
    *,
    agent: Path = AGENT,
    refresh: bool = False,
) -> Runtime:
    """The runtime, built if it is absent, damaged or of another agent; about a millisecond when it is not.

    With *refresh* the archive is asked for a newer kernel. Raises RuntimeBroken, or what apt and the storage
    raise.
    """
    found, reason = _current(paths, agent)
    if found is not None and not refresh:
        return found
    private_directory(paths.cache)
    private_directory(paths.runtimes)
    with locked(
        paths.runtime_lock,
        deadline,
        waiting=lambda: progress.note("Waiting for another pyro that builds the runtime."),
    ):
        if not refresh:
            found, reason = _current(paths, agent)
            if found is not None:
                return found
        from pyro_mcp.runtime.make import Builder  # with its decompressors, too slow to load for who only looks

        return Builder(paths, settings, progress, deadline).build(agent, refresh=refresh, damage=reason)


def verify(paths: Paths, *, full: bool = True) -> list[str]:
    """What is wrong with the runtime in use, a line each; *full* compares every byte's digest."""
    digest = _indexed_digest(paths)
    if digest is None:
        return ["no runtime is installed"]
    reason = reason_not_intact(paths.runtimes / digest, AGENT, full=full)
    return [reason] if reason else []


def inspect(paths: Paths, *, agent: Path = AGENT) -> RuntimeReport:
    """The state of the runtime. Never raises, changes nothing."""
    problems = []
    try:
        agent_identity(agent)
    except PyroError as error:
        problems.append(error.cause)
    try:
        digest = _indexed_digest(paths)
        if digest is None:
            return RuntimeReport("absent", None, "", "", "", tuple(problems))
        directory = paths.runtimes / digest
        found = load(directory, agent)
    except (PyroError, OSError) as error:
        return RuntimeReport("damaged", None, "", "", "", (*problems, str(error)))
    package = found.manifest["kernel"]
    text = f"{package.get('package', '')} {package.get('version', '')}"
    state = "ready" if problems or _current(paths, agent)[0] else "stale"
    return RuntimeReport(state, directory, found.digest, found.kernel_version, text, tuple(problems))


def _indexed_digest(paths: Paths) -> str | None:
    digest = (read_json(paths.runtimes / INDEX) or {}).get("digest")
    return digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else None


def _current(paths: Paths, agent: Path) -> tuple[Runtime | None, str]:
    """The runtime in use if it is intact and of this agent and builder; else ``None`` and its damage."""
    identity = agent_identity(agent)
    index = read_json(paths.runtimes / INDEX)
    digest = _indexed_digest(paths) if index else None
    if not index or digest is None or index.get("recipe") != RECIPE:
        return None, ""
    if index.get("agent") != {"path": str(agent), **asdict(identity)}:
        return None, ""
    try:
        return load(paths.runtimes / digest, agent), ""
    except PyroError as error:
        return None, error.cause
