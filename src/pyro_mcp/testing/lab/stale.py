"""Removing parts of the lab that nobody starts from any more."""

from pathlib import Path

from pyro_mcp.host.files import remove_tree, storage

KEPT = 2  # another lab may be about to start from the one before


def drop_older(directory: Path, pattern: str) -> None:
    """Of what matches *pattern* in *directory*, keep the newest two. Raises StorageFault."""
    with storage(f"removing old parts of the lab in {directory}"):
        found = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for old in found[KEPT:]:
            if old.is_dir():
                remove_tree(old)
            else:
                old.unlink(missing_ok=True)
