"""The Debian bootstrap: ``mmdebstrap | sqfstar``, packages checked against the archive's signatures, no root needed.

As root mmdebstrap works in a mount and a pid namespace of its own. A normal user needs the package uidmap and a range
of ids in /etc/subuid and /etc/subgid; the result is the same to the byte. Nothing of the host gets into the image: no
name, no resolver, no keys.
"""

import os
import re
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.diagnosis import failure
from pyro_mcp.environments.pipeline import pipe
from pyro_mcp.environments.source import Made, require_space
from pyro_mcp.errors import EnvironmentFault
from pyro_mcp.host import apt, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress

# Newer files are given this time (2025-01-01 UTC), so that the same packages make the same image.
SOURCE_DATE_EPOCH = "1735689600"
# lz4: an emulated guest reads it as fast as an uncompressed image and twice as fast as zstd, in half the space.
# sqfstar ignores the tar's own entry for the root directory, which would be mode 0777 and belong to the caller.
# The three options are the remedy, but sqfstar 4.5.1 pays no attention to the last two: see packed_by().
PACK = ("-comp", "lz4", "-quiet", "-no-progress", "-root-mode", "0755", "-root-uid", "0", "-root-gid", "0")
SOURCE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<scheme>[a-z+]+:/+)(?:[^/@\s]+@)?(?P<rest>\S.*)")
DPKG_STATUS = "var/lib/dpkg/status"
DPKG_STATUS_MOST = 32 << 20
# What mmdebstrap says on stderr when a stage begins.
STAGES = {
    "I: running apt-get update...": "update",
    "I: downloading packages with apt...": "download",
    "I: extracting archives...": "bootstrap",
    "I: creating tarball...": "pack",
}
# Run by mmdebstrap with the new root as $1. It copied the host's name and resolver there to reach the network.
FILES = {
    "/etc/hostname": "pyro\n",
    "/etc/hosts": "127.0.0.1\tlocalhost pyro\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "/etc/resolv.conf": "",
    "/etc/machine-id": "",
}
# Without them mmdebstrap mounts /proc and more on the host's tree, and leaves that there when it is killed.
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
# As root, apt cannot let its own user into a private directory, and gives these to root.
OWNERS = 'chroot "$1" chown _apt:root /var/lib/apt/lists/partial /var/cache/apt/archives/partial'
CLEANING = 'rm -f "$1"/etc/ssh/ssh_host_* "$1/var/lib/dbus/machine-id" "$1/etc/apt/apt.conf.d/99mmdebstrap"'

# Every command begins with a login shell. Debian's starts a program to ask who it is, and as root another one that is
# for terminals; under emulation the two cost more than most commands. The shell can tell both by itself.
LOGIN = (
    r"""sed -i 's|"$(id -u)" -eq 0|-O /|' "$1/etc/profile" """.strip(),
    r"""sed -i 's/^mesg n/[ ! -t 0 ] || &/' "$1/root/.profile" """.strip(),
)


class DebianBootstrap:
    """The source that needs nothing but a Debian archive: that of *settings*, else that of the host's own apt."""

    def __init__(self, settings: Settings) -> None:
        self._mirror = settings.debian_mirror

    @property
    def title(self) -> str:
        """What a person calls it."""
        return "Debian bootstrap"

    def offers(self, entry: CatalogEntry) -> bool:
        """Whether this source can be asked for *entry*."""
        return entry.distribution == "debian"

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Bootstrap *entry* into ``work/rootfs.squashfs``."""
        temporary = _temporary(work)
        _require_space(entry, work, temporary)
        sources = apt.sources_for(entry.suite, mirror=self._mirror)
        image = work / "rootfs.squashfs"
        env = {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "TMPDIR": str(temporary), **_proxies(deadline)}
        with storage(f"preparing {work}"):
            listing = (work / "sources.list").open("w+b")
        with listing:
            with storage(f"preparing {work}"):
                listing.write("".join(f"{line}\n" for line in sources).encode())
                listing.seek(0)
            piped = pipe(
                plan(entry, sources, confined_by(deadline)),
                packed_by(image),
                deadline,
                env=env,
                stdin=listing,
                on_line=_stage_teller(entry, progress),
                on_bytes=progress.advance,
            )
        error = failure(entry.name, piped, str(temporary))
        if error is not None:
            raise error
        return Made(image, f"bootstrap:{entry.distribution}/{entry.suite}", _packages(image, deadline))


def confined_by(deadline: Deadline) -> list[str]:
    """What mmdebstrap is started with, so that neither a process nor a mount of it outlives a killed pyro.

    Nothing for a normal user: mmdebstrap makes its namespaces itself, goes on when pyro is killed, and cleans up when
    nobody takes its output. A root that may not make namespaces (a container) may not mount either.
    """
    if os.geteuid() != 0:
        return []
    if proc.run([*NAMESPACES, "true"], deadline, check=False).status == 0:
        return ["setpriv", "--pdeathsig=KILL", *NAMESPACES]
    return ["setpriv", "--pdeathsig=TERM"]


def plan(entry: CatalogEntry, sources: Sequence[str], confined: Sequence[str] = ()) -> list[str]:
    """The mmdebstrap command: apt *sources* on stdin (they may hold a password), a tar stream on stdout."""
    hooks = [_write(path, text) for path, text in FILES.items()]
    hooks.append(_write("/etc/apt/sources.list", "".join(f"{line}\n" for line in guest_sources(sources))))
    return [
        *confined,
        "mmdebstrap",
        "--mode=auto",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(entry.include)}",
        '--aptopt=Acquire::Retries "3"',
        *(f"--customize-hook={hook}" for hook in [*hooks, *LOGIN, OWNERS, CLEANING]),
        entry.suite,
        "-",
        "-",
    ]


def packed_by(image: Path) -> list[str]:
    """The sqfstar command, as root of a user namespace at least: so the root directory belongs to root."""
    return [*([] if os.geteuid() == 0 else ["unshare", "--map-root-user"]), "sqfstar", *PACK, str(image)]


def guest_sources(sources: Sequence[str]) -> list[str]:
    """The apt sources as the guest gets them: no password, no option that names a file of the host."""
    found = (SOURCE_LINE.fullmatch(line.strip()) for line in sources)
    return [f"deb {match['scheme']}{match['rest']}" for match in found if match is not None]


def _write(path: str, text: str) -> str:
    """A hook that writes a file of mode 0644, whatever was there."""
    target = f'"$1"{path}'
    return f"rm -f {target} && printf %s {shlex.quote(text)} > {target} && chmod 0644 {target}"


def _stage_teller(entry: CatalogEntry, progress: Progress) -> Callable[[str], None]:
    def tell(line: str) -> None:
        stage = STAGES.get(line.strip())
        if stage is not None:
            progress.phase(stage, environment=entry.name)

    return tell


def _temporary(work: Path) -> Path:
    """Where mmdebstrap unpacks: as root in *work*, which is swept after a crash and which mapped ids cannot enter."""
    return work if os.geteuid() == 0 else Path(tempfile.gettempdir())


def _require_space(entry: CatalogEntry, work: Path, temporary: Path) -> None:
    if work == temporary:
        require_space(work, entry.root_mib + entry.image_mib, entry.name)
    else:
        require_space(temporary, entry.root_mib, entry.name)
        require_space(work, entry.image_mib, entry.name)


def _proxies(deadline: Deadline) -> dict[str, str]:
    """The proxies of the host's apt configuration, which mmdebstrap does not read; the caller's variables go first."""
    argv = ["apt-config", "dump", "--format", "%f=%v%n", "Acquire::http::Proxy", "Acquire::https::Proxy"]
    said = proc.run(argv, deadline, check=False).stdout.decode(errors="replace")
    pairs = (line.partition("=") for line in said.splitlines())
    found = {f"{name.split('::')[1]}_proxy": value for name, _, value in pairs if name.endswith("::Proxy") and value}
    return {name: value for name, value in found.items() if name not in os.environ and name.upper() not in os.environ}


def _packages(image: Path, deadline: Deadline) -> dict[str, str]:
    """The packages in *image* with their versions: that it can be read back is its first check."""
    done = proc.run(["unsquashfs", "-cat", str(image), DPKG_STATUS], deadline, check=False)
    text = done.stdout.decode(errors="replace")
    found = {
        fields["package"]: fields["version"]
        for fields in apt.paragraphs(text)
        if fields.get("status", "").endswith(" installed") and {"package", "version"} <= fields.keys()
    }
    if done.status != 0 or not found:
        raise EnvironmentFault("the image that was just made cannot be read back", details=proc.tail(done.stderr))
    return dict(sorted(found.items()))
