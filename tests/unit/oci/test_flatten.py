"""Layers laid over each other: what is left, in every dialect of tar, and packed by sqfstar."""

import base64
import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.oci_images import Member, directory, hard_link, layer, symlink

from pyro_mcp.environments.oci.flatten import Flattened, Layer, tar_of
from pyro_mcp.environments.oci.layers import Limits
from pyro_mcp.environments.oci.tar_reader import TarReader
from pyro_mcp.errors import ImageRefused
from pyro_mcp.host.deadline import Deadline

LIMITS = Limits(1 << 30, names=5000)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@dataclass(frozen=True, slots=True)
class Bytes:
    """A layer in memory."""

    data: bytes
    digest: str = ""

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


def flattened(*layers: bytes, limits: Limits = LIMITS) -> Flattened:
    return Flattened([Layer(Bytes(data)) for data in layers], limits, Deadline.never())


def contents(*layers: bytes) -> dict[str, tarfile.TarInfo]:
    """What is left, read back by the standard library."""
    with tarfile.open(fileobj=io.BytesIO(tar_of(flattened(*layers)))) as tar:
        members = tar.getmembers()
    assert len({member.name for member in members}) == len(members)
    return {member.name: member for member in members}


def data_of(name: str, *layers: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(tar_of(flattened(*layers)))) as tar:
        stream = tar.extractfile(name)
        assert stream is not None
        return stream.read()


LOWER = layer(directory("d"), Member("d/a", b"1"), Member("d/b", b"2"), directory("d/s"), Member("d/s/x", b"3"))


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        (layer(Member("d/.wh.a")), {"d", "d/b", "d/s", "d/s/x"}),
        (layer(Member(".wh.d")), set()),
        (layer(Member(".wh.d"), directory("d"), Member("d/n")), {"d", "d/n"}),
        (layer(directory("d"), Member("d/n"), Member(".wh.d")), {"d", "d/n"}),
        (layer(Member("d/n"), Member("d/.wh..wh..opq")), {"d", "d/n"}),
        (layer(Member("d/.wh..wh..opq"), Member("d/s/n")), {"d", "d/s", "d/s/n"}),
        (layer(Member("d/s/n"), Member("d/.wh..wh..opq")), {"d", "d/s", "d/s/n"}),
        (layer(Member("d", b"file")), {"d"}),
        (layer(symlink("d", "e")), {"d"}),
        (layer(Member("d/a", b"new"), Member("d/.wh.a")), {"d", "d/a", "d/b", "d/s", "d/s/x"}),
        (layer(Member("no/.wh.such"), Member(".wh.nothing")), {"d", "d/a", "d/b", "d/s", "d/s/x"}),
        (layer(Member(".wh..wh.aufs"), directory(".wh..wh.plnk"), Member(".wh..wh.plnk/1")), None),
    ],
)
def test_whiteouts_hide_what_is_below_and_nothing_else(upper: bytes, left: set[str] | None) -> None:
    assert set(contents(LOWER, upper)) == (set(contents(LOWER)) if left is None else left)


def test_the_last_of_the_same_name_wins() -> None:
    assert (
        data_of("a", layer(Member("a", b"1"), Member("a", b"2")), layer(Member("./a", b"3"), Member("/a", b"4")))
        == b"4"
    )


def test_a_directory_that_comes_again_keeps_what_it_holds() -> None:
    found = contents(LOWER, layer(directory("d", 0o700, uid=7)))
    assert (found["d"].mode, found["d"].uid) == (0o700, 7)
    assert "d/a" in found


def test_a_hard_link_keeps_its_content_when_the_first_name_goes() -> None:
    lower = layer(Member("a", b"same", mode=0o4755, uid=3), hard_link("b", "a"), hard_link("z/c", "./a"))
    upper = layer(Member(".wh.a"), hard_link("e", "b"))
    found = contents(lower, upper)
    assert set(found) == {"b", "e", "z", "z/c"}
    assert data_of("z/c", lower, upper) == b"same"
    assert [found[name].islnk() for name in ("b", "e", "z/c")] == [False, True, True]
    assert (found["b"].mode, found["b"].uid) == (0o4755, 3)


def test_a_hard_link_before_its_file_is_resolved() -> None:
    assert contents(layer(hard_link("b", "a"), Member("a", b"x")))["b"].islnk()


def test_names_below_a_link_go_where_it_leads_inside_the_image() -> None:
    lower = layer(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("up", "../../usr"))
    found = contents(lower, layer(Member("lib/x"), Member("up/lib/y"), Member("lib/.wh.z")))
    assert {"usr/lib/x", "usr/lib/y"} <= set(found)
    assert found["lib"].issym()


def test_a_loop_of_links_is_refused() -> None:
    with pytest.raises(ImageRefused, match="no directory"):
        contents(layer(symlink("a", "b"), symlink("b", "a"), Member("a/x")))


def test_a_shell_is_found_behind_links() -> None:
    program = Member("usr/bin/dash", b"x", mode=0o755)
    assert flattened(layer(program, symlink("usr/bin/sh", "dash"), symlink("bin", "usr/bin"))).has("/bin/sh")
    assert not flattened(layer(program, symlink("bin/sh", "/nowhere"))).has("/bin/sh")


def test_a_working_directory_that_is_missing_is_made() -> None:
    image = flattened(layer(directory("srv")))
    image.require_directory("/srv/app/x")
    with tarfile.open(fileobj=io.BytesIO(tar_of(image))) as tar:
        assert "srv/app/x" in tar.getnames()


def test_too_many_names_are_refused() -> None:
    with pytest.raises(ImageRefused, match="more than 50 names"):
        flattened(layer(Member("/".join("a" * 60))), limits=Limits(1 << 20, names=50))


def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused() -> None:
    bomb = zstandard.compress(layer(Member("z", bytes(40 << 20))))
    with pytest.raises(ImageRefused, match="times its size"):
        flattened(bomb, limits=Limits(1 << 30, ratio=1000, ratio_from=1 << 20))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_is_read(form: int) -> None:
    name = f"{'d' * 90}/{'f' * 99}"
    found = contents(layer(Member(name, b"x", uid=1000), symlink("s", "t" * 90), form=form))
    assert found[name].uid == 1000
    assert found["s"].linkname == "t" * 90


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_links_and_large_numbers_are_read(form: int) -> None:
    name = "/".join(["n" * 200] * 5)
    found = contents(layer(Member(name, b"x", uid=3_000_000_000, gid=3_000_000), symlink("s", "t" * 3000), form=form))
    assert (found[name].uid, found[name].gid) == (3_000_000_000, 3_000_000)
    assert found["s"].linkname == "t" * 3000


def system_tar(tmp_path: Path, *options: str) -> bytes:
    return subprocess.run(["tar", "-C", str(tmp_path), *options, "-c", "."], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "options",
    [["-H", "gnu"], ["-H", "oldgnu"], ["-H", "posix", "--sparse-version=0.0"],
     ["-H", "posix", "--sparse-version=0.1"], ["-H", "posix", "--sparse-version=1.0"]],
)  # fmt: skip
def test_sparse_files_come_out_whole(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(40):
            file.seek(number * 100_000)
            file.write(b"%d" % number)
        file.truncate(5_000_000)
    data = system_tar(tmp_path, *options, "--sparse")
    assert len(data) < 1_000_000
    assert data_of("sparse", data) == (tmp_path / "sparse").read_bytes()


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "posix"])
def test_what_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x" * 1000)
    (tmp_path / "d/l").symlink_to("f")
    (tmp_path / "d/h").hardlink_to(tmp_path / "d/f")
    (tmp_path / bytes([0xFF, 0xFE]).decode(errors="surrogateescape")).write_bytes(b"")
    found = contents(system_tar(tmp_path, "-H", form))
    assert {"d", "d/f", "d/l", "d/h"} <= set(found)
    assert len(found) == 5


def test_extended_attributes_and_devices_reach_the_image(tmp_path: Path) -> None:
    encoded = base64.b64encode(CAPABILITY).decode()
    data = layer(
        Member("ping", b"x", mode=0o755, pax={"LIBARCHIVE.xattr.security.capability": encoded}),
        Member("note", b"", pax={"SCHILY.xattr.user.a b": "v=1\n2", "SCHILY.xattr.trusted.overlay.redirect": "/x"}),
        Member("acl", b"", pax={"SCHILY.xattr.system.posix_acl_access": "zz"}),
        Member("old", b"", pax={"mtime": "-5.5"}),
        Member("null", kind=tarfile.CHRTYPE),
        Member("pipe", kind=tarfile.FIFOTYPE),
    )
    stream = tar_of(flattened(data))
    entries = {entry.path: entry for entry in TarReader(io.BufferedReader(io.BytesIO(stream)))}
    assert entries[b"ping"].xattrs == {b"security.capability": CAPABILITY}
    assert entries[b"note"].xattrs == {b"user.a b": b"v=1\n2"}
    assert entries[b"acl"].xattrs == {}
    image = tmp_path / "image"
    done = subprocess.run(
        ["sqfstar", "-quiet", "-no-progress", str(image)], input=stream, capture_output=True, check=True
    )
    assert done.stderr == b""
    listing = subprocess.run(["unsquashfs", "-lln", str(image)], capture_output=True, check=True, text=True).stdout
    assert "crw-r--r--" in listing
    assert "prw-r--r--" in listing


def test_a_layer_must_have_both_of_its_digests() -> None:
    data = layer(Member("a", b"x"))
    right = f"sha256:{hashlib.sha256(data).hexdigest()}"
    Flattened([Layer(Bytes(data, right), right)], LIMITS, Deadline.never())
    for bad in (Layer(Bytes(data, "sha256:" + "0" * 64)), Layer(Bytes(data), "sha256:" + "0" * 64)):
        with pytest.raises(ImageRefused, match="differs from its digest"):
            Flattened([bad], LIMITS, Deadline.never())


@pytest.mark.parametrize("frames", [1, 3])
def test_zstd_is_unpacked_also_in_several_frames(frames: int) -> None:
    data = layer(Member("a", b"x" * 5000))
    step = -(-len(data) // frames)
    packed = b"".join(zstandard.compress(data[at : at + step]) for at in range(0, len(data), step))
    assert data_of("a", packed) == b"x" * 5000


@given(st.binary(max_size=2000), st.integers(0, 4000), st.integers(0, 255))
def test_no_bytes_make_it_fail_otherwise_than_by_refusing(noise: bytes, at: int, value: int) -> None:
    data = bytearray(layer(Member("a" * 120, b"x" * 600), symlink("s", "a"), directory("d"), Member("d/.wh.x")))
    data[at % len(data)] = value
    for stream in (bytes(data), noise, bytes(data[:at])):
        try:
            tar_of(flattened(stream))
        except ImageRefused:
            continue
