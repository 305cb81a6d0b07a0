"""From the last lines of mmdebstrap and sqfstar to a cause and a remedy."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from pyro_mcp.environments.pipeline import Ended, Piped
from pyro_mcp.errors import EnvironmentFault, NoSpace, OperationFailed
from pyro_mcp.host import proc
from pyro_mcp.host.files import RAISE_FILE_LIMIT

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
FULL = re.compile(r"No space left on device|Disk quota exceeded|don't have enough free space")
FILE_LIMIT = re.compile(rf"File size limit exceeded|File too large|signal {signal.SIGXFSZ:d}\b")
ANOTHER_MIRROR = "set PYRO_DEBIAN_MIRROR to the URL of a Debian archive that this host reaches"


@dataclass(frozen=True, slots=True)
class Known:
    """A failure that is recognized by what the program says."""

    signs: re.Pattern[str]
    cause: str
    remedy: str


def _known(signs: str, cause: str, remedy: str) -> Known:
    return Known(re.compile(signs), cause, remedy)


# The first that matches counts: a host without a network also complains about missing Release files.
KNOWN = (
    _known(
        r"unable to pick chroot mode|newuidmap|newgidmap|/etc/sub[ug]id|unshare(\(\))? failed|unprivileged_userns",
        "this user may not make a root filesystem, because user namespaces with a range of ids do not work here",
        "Install the package uidmap and give your user a range of ids"
        " (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER). Where a security module forbids"
        " user namespaces (Ubuntu 24.04: sysctl kernel.apparmor_restrict_unprivileged_userns), allow them.",
    ),
    _known(
        r"Temporary failure resolving|Could not resolve|Could not connect|Unable to connect"
        r"|Cannot initiate the connection|Connection (refused|timed out|failed|reset)"
        r"|Network is unreachable|No route to host|Could not handshake",
        "the Debian archive cannot be reached",
        f"Check the network and the proxy (http_proxy, https_proxy), or {ANOTHER_MIRROR}.",
    ),
    _known(
        r"NO_PUBKEY|EXPKEYSIG|BADSIG|couldn't be verified|is not signed|no keyring"
        r"|\.gpg.* (not found|unreadable|does not exist)",
        "the signature of the Debian archive cannot be verified",
        "Install or update the package debian-archive-keyring.",
    ),
    _known(
        r"Release file .* (is expired|is not valid yet)",
        "the Debian archive is out of date, or this host's clock is wrong",
        f"Check this host's clock, or {ANOTHER_MIRROR}.",
    ),
    _known(
        r"does not have a Release file|404 +Not Found|Unable to locate package|no installation candidate"
        r"|Hash Sum mismatch",
        "the Debian archive does not have what is needed",
        f"Try again later, or {ANOTHER_MIRROR}.",
    ),
    _known(
        r"(mount|mknod|chroot|chown)\b.*(Operation not permitted|[Pp]ermission denied)",
        "this host does not allow a root filesystem to be made (a restricted container)",
        "Pull it as a normal user with the package uidmap installed, or give the container the capability SYS_ADMIN.",
    ),
)


def without_credentials(lines: Sequence[str]) -> list[str]:
    """The lines with user and password removed from URLs."""
    return [CREDENTIALS.sub("***@", line) for line in lines]


def failure(name: str, piped: Piped, temporary: str) -> OperationFailed | None:
    """The error of ``mmdebstrap | sqfstar``, or ``None`` when both did well. *temporary* is where the first unpacks."""
    if piped.producer is not None and piped.producer.status != 0:
        where = f"bootstrapping {name} in {temporary}"
        remedy = "Free some disk space there, or set TMPDIR to a directory with more."
        return _usual(name, piped.producer, where, remedy) or _unusual(name, piped.producer, "mmdebstrap")
    if piped.consumer.status != 0:
        return _usual(name, piped.consumer, f"packing {name}", None) or _unusual(name, piped.consumer, "sqfstar")
    return None


def _usual(name: str, ended: Ended, doing: str, remedy: str | None) -> OperationFailed | None:
    """The error when what the program said is known."""
    text = ended.log.decode(errors="replace")
    details = without_credentials(proc.tail(ended.log))
    if ended.status == -signal.SIGXFSZ or FILE_LIMIT.search(text):
        cause = f"{name} needs larger files than this process may write"
        return NoSpace(cause, remedy=RAISE_FILE_LIMIT, details=details)
    if FULL.search(text):
        return NoSpace(f"no space left while {doing}", remedy=remedy, details=details)
    for known in KNOWN:
        if known.signs.search(text):
            return EnvironmentFault(f"cannot make {name}: {known.cause}", remedy=known.remedy, details=details)
    return None


def _unusual(name: str, ended: Ended, program: str) -> OperationFailed:
    details = without_credentials(proc.tail(ended.log))
    reasons = [line.removeprefix("E: ") for line in details if line.startswith(("E: ", "FATAL ERROR"))]
    reason = f": {reasons[0]}" if reasons else ""
    return EnvironmentFault(f"cannot make {name}: {program} ended with status {ended.status}{reason}", details=details)
