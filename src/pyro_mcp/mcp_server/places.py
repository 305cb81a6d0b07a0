"""Which paths of this host a client may have pushed into a guest: a model chooses them, so there are limits."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyro_mcp.errors import InvalidRequest

PATH_CHARS_MOST = 4096


@dataclass(frozen=True, slots=True)
class Places:
    """*explicit*: what the operator named, and then nothing else counts. *working*: where the server was started.

    *client_roots*: whether the client is on this host, so that the roots it tells mean something.
    """

    explicit: tuple[Path, ...] = ()
    working: Path | None = None
    client_roots: bool = False

    @classmethod
    def of(cls, allowed: Iterable[str | Path], *, local: bool) -> "Places":
        """The places of a server; *local*: its client runs on this host, as with stdio."""
        explicit = tuple(_existing(path) for path in allowed)
        return cls(explicit, _working() if local and not explicit else None, local and not explicit)

    def wants_roots(self, text: str | None) -> bool:
        """Whether the client's own roots decide on *text*."""
        if not text or not self.client_roots or not _is_plain(text):
            return False
        return not any(_resolved(text).is_relative_to(root) for root in self._roots())

    def check(self, text: str, client_roots: Iterable[str] = ()) -> Path:
        """The real path that *text* names; raises InvalidRequest unless it is below an allowed root."""
        if not _is_plain(text):
            raise InvalidRequest(
                f"{text!r:.80} is not a path", remedy="Give an absolute path without control characters."
            )
        path = _resolved(text)
        roots = [*self._roots(), *(self._of_client(client_roots) if self.client_roots else ())]
        if not any(path.is_relative_to(root) for root in roots):
            names = ", ".join(str(root) for root in roots) or "none"
            raise InvalidRequest(
                f"{_printable(path)} is outside the directories this server may read (allowed: {names:.600})",
                remedy="Use a path below one of them, or ask the user to start the server with `--allow-path DIR`.",
            )
        return path

    def _roots(self) -> list[Path]:
        return [*self.explicit, *([self.working] if self.working else [])]

    def _of_client(self, uris: Iterable[str]) -> list[Path]:
        found = []
        for uri in uris:
            parts = urlsplit(uri)
            if parts.scheme == "file" and parts.netloc in ("", "localhost") and _is_plain(unquote(parts.path)):
                root = _resolved(unquote(parts.path))
                if not _is_wide(root):
                    found.append(root)
        return found


def _existing(path: str | Path) -> Path:
    found = Path(path).expanduser().absolute().resolve()
    if not found.exists():
        raise InvalidRequest(f"--allow-path {_printable(found)} does not exist", remedy="Make it, or leave it out.")
    return found


def _working() -> Path | None:
    """The working directory, unless it is no choice of anybody: hosts start servers in ``/`` or at home."""
    try:
        here = Path.cwd().resolve()
    except OSError:
        return None
    return None if _is_wide(here) else here


def _is_wide(path: Path) -> bool:
    """Whether *path* is the user's home, or above it."""
    return Path.home().resolve().is_relative_to(path)


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= PATH_CHARS_MOST and not any(ord(letter) < 32 or ord(letter) == 127 for letter in text)


def _resolved(text: str) -> Path:
    """The path with every link followed, so that a link cannot lead out of a root."""
    try:
        return Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111 - pathlib raises for unknown users
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{text!r:.80} is not a path") from error


def _printable(path: Path) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(path)[:400])
