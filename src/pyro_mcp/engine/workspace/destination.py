"""Paths in the guest: ``/workspace`` or below it, never with ``..``."""

import os

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.sync.records import NAME_MOST, PATH_MOST

WORKSPACE = "/workspace"


def below_workspace(text: str, what: str = "destination") -> bytes:
    """The path from the workspace on, ``b""`` for the workspace itself. Relative paths start in the workspace."""
    if not text or "\0" in text:
        raise InvalidRequest(f"workspace {what} must not be empty or hold a NUL byte")
    absolute = text if text.startswith("/") else f"{WORKSPACE}/{text}"
    parts = [part for part in absolute.split("/") if part not in ("", ".")]
    if ".." in parts or parts[:1] != [WORKSPACE[1:]]:
        raise InvalidRequest(
            f"workspace {what} must stay inside {WORKSPACE}",
            remedy=f"Give a path below {WORKSPACE}, without `..`; a relative one starts there.",
        )
    names = [os.fsencode(part) for part in parts[1:]]
    path = b"/".join(names)
    if len(path) > PATH_MOST or any(len(name) > NAME_MOST for name in names):
        raise InvalidRequest(f"workspace {what} is too long")
    return path


def full(path: bytes) -> str:
    """*path*, from the workspace on, as people write it."""
    return f"{WORKSPACE}/{os.fsdecode(path)}" if path else WORKSPACE


def join(parent: bytes, name: bytes) -> bytes:
    """*name* in *parent*, which may be empty."""
    return parent + b"/" + name if parent and name else parent or name


def leads_outside(link: bytes, target: bytes) -> bool:
    """Whether a relative symbolic link at *link* (from the workspace on) leads out of it, going by the names alone."""
    if target.startswith(b"/"):
        return False
    depth = link.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        if depth < 0:
            return True
    return False
