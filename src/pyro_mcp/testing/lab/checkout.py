"""The checkout as the lab gets it: sent through the agent at each start, so that what is tested is what lies here."""

import io
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.host.files import storage
from pyro_mcp.testing.lab.supplies import write_tar

PARTS = (
    "src",
    "tests",
    "docs",
    "benchmarks",
    "runtime_sources",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
)
LEFT_OUT = {"__pycache__"}


def archive(checkout: Path) -> bytes:
    """A tar of the parts of *checkout* that tests need."""
    stream = io.BytesIO()
    with storage(f"reading {checkout}"):
        write_tar(stream, {path.relative_to(checkout).as_posix(): path for path in _files(checkout)})
    return stream.getvalue()


def _files(checkout: Path) -> Iterator[Path]:
    for part in PARTS:
        place = checkout / part
        if place.is_file():
            yield place
        for path in sorted(place.rglob("*")) if place.is_dir() else ():
            if path.is_file() and not LEFT_OUT & set(path.relative_to(checkout).parts):
                yield path
