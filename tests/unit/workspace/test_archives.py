"""Archives: what survives, and a corpus of hostile ones, each refused with its reason and nothing changed."""

import contextlib
import gzip
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_mcp.engine.workspace import PushOptions
from pyro_mcp.engine.workspace.archive import ArchiveSource
from pyro_mcp.errors import ArchiveRefused, InvalidRequest

from ...local_agent import LocalAgent  # noqa: TID252 - the tests are no installed package
from .archives import FILE, HOSTILE, bomb, crowd, member, tar
from .conftest import Push, tree
from .test_push import fill


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_arrives_as_the_directory_it_was_made_of(
    agent: LocalAgent, source: Path, send: Push, tmp_path: Path, suffix: str, form: int
) -> None:
    fill(source)
    archive = tmp_path / f"source{suffix}"
    with tarfile.open(archive, "w:" if suffix == ".tar" else "w:gz", format=form) as made:
        made.add(source, ".")
    result = send(archive)
    found, wanted = tree(agent.workspace), tree(source)
    if form == tarfile.GNU_FORMAT:  # whole seconds
        found = {name: (*rest, time // 10**9) for name, (*rest, time) in found.items()}  # type: ignore[operator]
        wanted = {name: (*rest, time // 10**9) for name, (*rest, time) in wanted.items()}  # type: ignore[operator]
    else:  # tarfile writes PAX times as floating point
        found = {name: (*rest, round(time / 10**9, 3)) for name, (*rest, time) in found.items()}  # type: ignore[operator]
        wanted = {name: (*rest, round(time / 10**9, 3)) for name, (*rest, time) in wanted.items()}  # type: ignore[operator]
    assert found == wanted
    assert (agent.workspace / "same.txt").samefile(agent.workspace / "src" / "note.txt")
    assert (result.mode, result.entry_count) == ("tar_archive", len(wanted))
    assert send(archive).transferred_entries == 0


def test_gnu_tar_with_holes_arrives_with_holes(agent: LocalAgent, source: Path, send: Push, tmp_path: Path) -> None:
    fill(source)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run(["tar", "-C", source, "--sparse", f"--format={form}", "-cf", archive, "."], check=True)
        assert archive.stat().st_size < 1 << 20
        send(archive, form)
        assert (agent.workspace / form / "sparse").read_bytes() == (source / "sparse").read_bytes()
        assert (agent.workspace / form / "sparse").stat().st_blocks * 512 < 1 << 20
        assert list(tree(agent.workspace / form)) == list(tree(source))


@pytest.mark.parametrize(("make", "code", "says"), [pytest.param(*row[1:], id=row[0]) for row in HOSTILE])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_hostile_archive_is_refused_with_its_reason(
    agent: LocalAgent,
    send: Push,
    tmp_path: Path,
    make: Callable[[], bytes],
    code: str,
    says: str,
    dry_run: bool,  # noqa: FBT001
) -> None:
    archive = tmp_path / "hostile.tgz"
    archive.write_bytes(make())
    (agent.workspace / "d").mkdir(parents=True)
    (agent.workspace / "d" / "kept").write_text("kept")
    before = tree(agent.workspace)
    with pytest.raises(InvalidRequest) as refused:
        send(archive, dry_run=dry_run)
    assert re.search(says, str(refused.value)), refused.value
    assert refused.value.code in code.split("|")
    assert tree(agent.workspace) == before
    assert tree(tmp_path).keys() >= {"hostile.tgz"}


def test_ten_gigabytes_of_zeroes_are_refused_at_their_header(send: Push, tmp_path: Path) -> None:
    archive = tmp_path / "bomb.tar.gz"
    with gzip.open(archive, "wb", 1) as out:
        info = member("zeroes")
        info.size = 10 << 30
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.write(bytes(64 << 20))
    with pytest.raises(InvalidRequest, match="more than 8589934592 bytes, at zeroes"):
        send(archive)


def test_zeroes_within_the_limit_arrive(agent: LocalAgent, send: Push, tmp_path: Path) -> None:
    bomb(tmp_path / "zeroes.tgz", 64 << 20)
    assert send(tmp_path / "zeroes.tgz").transferred_bytes == 64 << 20
    assert (agent.workspace / "zeroes").stat().st_size == 64 << 20


def test_a_million_entries_are_too_many(send: Push, tmp_path: Path) -> None:
    archive = tmp_path / "crowd.tar"
    with archive.open("wb") as out:
        out.writelines(crowd(30_000))
    with pytest.raises(InvalidRequest, match="more than 20000 entries"):
        send(archive, max_entries=20_000)


def test_names_that_are_no_text_arrive_as_they_are(agent: LocalAgent, send: Push, tmp_path: Path) -> None:
    (tmp_path / "odd.tar").write_bytes(tar(member("caf\udce9\udcff"), member("a\nb"), form=tarfile.GNU_FORMAT))
    send(tmp_path / "odd.tar")
    assert sorted(os.fsencode(path.name) for path in agent.workspace.iterdir()) == [b"a\nb", b"caf\xe9\xff"]


def test_a_directory_may_come_after_what_is_in_it(agent: LocalAgent, send: Push, tmp_path: Path) -> None:
    late = tar((member("d/f"), b"x"), member("d", tarfile.DIRTYPE, mode=0o700))
    (tmp_path / "late.tar").write_bytes(late)
    result = send(tmp_path / "late.tar")
    assert (agent.workspace / "d").stat().st_mode & 0o777 == 0o700
    assert result.entry_count == 2


def test_only_the_changed_member_of_an_archive_moves(agent: LocalAgent, send: Push, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar((member("x"), b"1" * 100), (member("y"), b"2" * 100)))
    send(archive)
    archive.write_bytes(tar((member("x"), b"1" * 100), (member("y"), b"3" * 100)))  # of the same size and time
    result = send(archive)
    assert (result.transferred_entries, result.transferred_bytes, result.unchanged_entries) == (1, 100, 1)
    assert (agent.workspace / "y").read_bytes() == b"3" * 100


def test_a_member_with_the_same_content_only_gets_its_mode_and_time(
    agent: LocalAgent, send: Push, tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar((member("x"), b"1" * 100), (member("y"), b"2" * 100), (member("z"), b"3" * 100)))
    send(archive)
    archive.write_bytes(
        tar(
            (member("x", mode=0o700), b"1" * 100),
            (member("y", mtime=1_800_000_000), b"2" * 100),
            (member("z"), b"3" * 100),
        )
    )
    result = send(archive)
    assert (result.transferred_entries, result.updated_entries, result.unchanged_entries) == (0, 2, 1)
    assert (agent.workspace / "x").stat().st_mode & 0o777 == 0o700
    assert (agent.workspace / "y").stat().st_mtime == 1_800_000_000
    result = send(archive)
    assert (result.transferred_entries, result.updated_entries, result.unchanged_entries) == (0, 0, 3)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cuts=st.integers(0, 3))
def test_a_damaged_archive_never_gets_through_as_something_else(tmp_path: Path, seed: int, cuts: int) -> None:
    """Bytes of headers are changed at random: refused with a PyroError, or understood; nothing else is raised."""
    chance = random.Random(seed)
    rows = [make for name, make, *_ in HOSTILE if name not in ("gzip goes on without end", "global headers")]
    data = bytearray(chance.choice([lambda: FILE, *rows])()[: 64 << 10])
    for _ in range(cuts):
        if data:
            data[chance.randrange(len(data))] = chance.choice(
                [0, 0xFF, ord("0"), ord("7"), ord("/"), chance.randrange(256)]
            )
    archive = tmp_path / "fuzzed.tar"
    archive.write_bytes(data)
    with ArchiveSource(archive, b"", PushOptions()) as opened, contextlib.suppress(ArchiveRefused, InvalidRequest):
        contents = opened.scan()
        for item, pieces in opened.read({path for path, item in contents.items.items() if item.size}):
            assert sum(len(piece.data) or piece.hole for piece in pieces) == item.size
