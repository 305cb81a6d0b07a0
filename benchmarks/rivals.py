"""What pyro is compared with, on the same root filesystem; whatever is not installed is left out, and said so."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300.0


@dataclass(frozen=True)
class Rival:
    """A command that does what `pyro run` does, with less isolation."""

    name: str
    argv: tuple[str, ...]


def rivals(image: Path, place: Path, command: tuple[str, ...]) -> list[Rival]:
    """The rivals that work on this host; *image* is unpacked below *place* for them."""
    if os.geteuid() != 0 or shutil.which("unsquashfs") is None:
        print("podman and bwrap are left out: unpacking the image needs root and unsquashfs", file=sys.stderr)
        return []
    root = place / "root"
    subprocess.run(
        ["unsquashfs", "-q", "-n", "-d", root, image], check=True, timeout=SECONDS, stdout=subprocess.DEVNULL
    )
    # Limits as they are here: raising them is not allowed everywhere, and takes podman no time.
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    podman = ("podman", "--runtime", "runc", "run", "--rm", "--network=none", *limits, "--rootfs", str(root))
    bwrap = (
        "bwrap",
        "--ro-bind",
        str(root),
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--unshare-all",
        "--die-with-parent",
    )
    candidates = [Rival("podman run (runc)", (*podman, *command)), Rival("bwrap", (*bwrap, *command))]
    return [rival for rival in candidates if _works(rival)]


def _works(rival: Rival) -> bool:
    try:
        done = subprocess.run(rival.argv, capture_output=True, timeout=SECONDS, check=False)
    except FileNotFoundError:
        print(f"{rival.name} is left out: {rival.argv[0]} is not installed", file=sys.stderr)
        return False
    if done.returncode != 0:
        print(f"{rival.name} is left out: {done.stderr.decode(errors='replace')[-300:]}", file=sys.stderr)
    return done.returncode == 0
