"""The disk of supplies: what is on it, and when it is made again."""

import io
import json
import os
import tarfile
from pathlib import Path

from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths
from pyro_mcp.testing.lab.stale import drop_older
from pyro_mcp.testing.lab.supplies import MTIMES, ensure_disk, write_tar


def test_everything_on_it_is_roots_and_everybody_may_read_it(tmp_path: Path) -> None:
    program, text = tmp_path / "program", tmp_path / "text"
    program.write_bytes(b"#!")
    program.chmod(0o700)
    text.write_bytes(b"words")
    text.chmod(0o600)
    os.link(text, tmp_path / "again")
    stream = io.BytesIO()
    write_tar(stream, {"bin/program": program, "a/b/text": text, "a/again": tmp_path / "again"}, {"made": b"up"})
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        found = {entry.name: (entry.isdir(), entry.mode, entry.uid, entry.uname) for entry in tar}
        again = tar.extractfile("a/again")
        assert again is not None
        assert again.read() == b"words"
    assert found == {
        "a": (True, 0o755, 0, ""),
        "a/b": (True, 0o755, 0, ""),
        "bin": (True, 0o755, 0, ""),
        "bin/program": (False, 0o755, 0, ""),
        "a/b/text": (False, 0o644, 0, ""),
        "a/again": (False, 0o644, 0, ""),
        "made": (False, 0o644, 0, ""),
    }


def test_a_disk_is_made_once_and_again_for_other_files(paths: Paths, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"one")
    files = {"cache/runtime/part": part}
    first = ensure_disk(paths, files, Deadline.after(60))
    made = first.stat().st_ino
    assert ensure_disk(paths, files, Deadline.after(60)).stat().st_ino == made
    listed = proc.run(["unsquashfs", "-cat", str(first), MTIMES], Deadline.after(60)).stdout
    assert json.loads(listed) == {"runtime/part": part.stat().st_mtime_ns}
    part.write_bytes(b"another")
    second = ensure_disk(paths, files, Deadline.after(60))
    assert second != first
    assert proc.run(["unsquashfs", "-cat", str(second), "cache/runtime/part"], Deadline.after(60)).stdout == b"another"
    assert not list(paths.lab.glob(".partial-*"))


def test_only_the_newest_two_parts_of_a_kind_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        directory = tmp_path / f"site-{number}"
        directory.mkdir()
        os.utime(directory, (number, number))
    drop_older(tmp_path, "site-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site-2", "site-3"]
