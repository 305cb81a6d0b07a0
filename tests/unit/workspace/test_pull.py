"""Pulling: what comes back, and what a hostile guest can do (nothing)."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_mcp.engine.workspace import PullOptions, PullResult, PushOptions, pull, push
from pyro_mcp.engine.workspace.landing import PREFIX, Landing, landing
from pyro_mcp.errors import GuestProtocol, InvalidRequest, NoSpace, PyroError
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.sync.records import Kind, Record, data_head, pack
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.testing.guest_peer import FakeGuest, GuestPeer

from ...local_agent import LocalAgent  # noqa: TID252 - the tests are no installed package
from .conftest import tree
from .test_push import fill


def fetch(channels: ChannelOpener, source: str, destination: Path, **options: object) -> PullResult:
    return pull(
        channels,
        source,
        destination,
        options=PullOptions(**options),  # type: ignore[arg-type]
        progress=Silent(),
        deadline=Deadline.after(60),
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where pulls go; what is beside it must stay as it is."""
    found = tmp_path / "place"
    found.mkdir()
    (tmp_path / "beside").write_text("mine")
    return found


def test_a_directory_comes_back_as_it_was(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    fill(agent.workspace)
    os.mkfifo(agent.workspace / "fifo")
    result = fetch(agent, "/workspace", place / "got")
    wanted = tree(agent.workspace)
    del wanted["fifo"]
    assert tree(place / "got") == wanted
    assert (place / "got" / "same.txt").samefile(place / "got" / "src" / "note.txt")
    assert (place / "got" / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (result.mode, result.entry_count) == ("directory", len(wanted))
    assert sorted(result.warnings) == [
        "fifo was left out: it is no file, directory or link",
        "python is a symbolic link that leads out: /usr/bin/python3",
    ]
    assert [path.name for path in place.iterdir()] == ["got"]


def test_a_file_becomes_the_destination_or_goes_into_it(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "out.txt").write_bytes(b"x" * 700_000)
    assert fetch(agent, "out.txt", place).destination == str(place / "out.txt")
    assert fetch(agent, "/workspace/out.txt", place / "other").mode == "file"
    assert (place / "other").read_bytes() == (place / "out.txt").read_bytes() == b"x" * 700_000
    with pytest.raises(InvalidRequest, match="is there already"):
        fetch(agent, "out.txt", place / "other")
    (agent.workspace / "out.txt").write_text("new")
    fetch(agent, "out.txt", place / "other", replace=True)
    assert (place / "other").read_text() == "new"


def test_a_destination_that_is_there_needs_replace_and_is_then_replaced_whole(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "new").write_text("new")
    old = place / "old"
    old.mkdir()
    fetch(agent, "/workspace", old)  # an empty directory makes room
    (old / "mine").mkdir(mode=0)
    before = tree(old)
    with pytest.raises(InvalidRequest, match="is there already"):
        fetch(agent, "/workspace", old)
    assert tree(old) == before
    fetch(agent, "/workspace", old, replace=True)
    assert tree(old).keys() == {"new"}
    assert [path.name for path in place.iterdir()] == ["old"]


def test_a_symbolic_link_at_the_destination_is_never_followed(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "f").write_text("guest")
    target = place / "target"
    target.write_text("mine")
    (place / "link").symlink_to(target)
    with pytest.raises(InvalidRequest, match="is there already"):
        fetch(agent, "f", place / "link")
    fetch(agent, "f", place / "link", replace=True)
    assert not (place / "link").is_symlink()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("source", ["", "..", "/etc/passwd", "/workspace/../etc", "a/../../b"])
def test_only_the_workspace_can_be_pulled(agent: LocalAgent, place: Path, source: str) -> None:
    with pytest.raises(InvalidRequest):
        fetch(agent, source, place / "x")


def test_what_is_not_there_or_lies_behind_a_link_says_so(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "etc").symlink_to("/etc")
    with pytest.raises(InvalidRequest, match="there is no /workspace/nothing"):
        fetch(agent, "nothing", place / "x")
    for source in ("etc", "etc/passwd"):
        with pytest.raises(InvalidRequest, match="cannot be pulled"):
            fetch(agent, source, place / "x")
    with pytest.raises(InvalidRequest, match="is no directory"):
        fetch(agent, "/workspace", place / "no" / "x")


def test_limits_stop_a_pull_and_leave_nothing(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    for number in range(5):
        (agent.workspace / str(number)).write_bytes(bytes(1000))
    with pytest.raises(InvalidRequest, match="more than 4 entries"):
        fetch(agent, "/workspace", place / "x", max_entries=4)
    with pytest.raises(InvalidRequest, match="more than 4500 bytes"):
        fetch(agent, "/workspace", place / "x", max_bytes=4500)
    assert list(place.iterdir()) == []


def test_a_full_host_is_told_and_nothing_is_left(
    agent: LocalAgent, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "f").write_text("x")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace):
        fetch(agent, "/workspace", place / "x")
    assert list(place.iterdir()) == []


def test_what_a_killed_pull_left_is_removed_by_the_next(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (place / f"{PREFIX}0123456789ab" / "tree").mkdir(parents=True)
    (place / f"{PREFIX}link").symlink_to(place.parent)
    fetch(agent, "/workspace", place / "x")
    assert sorted(path.name for path in place.iterdir()) == [f"{PREFIX}link", "x"]


def test_round_trip(agent: LocalAgent, source: Path, place: Path) -> None:
    fill(source)
    push(agent, source, "a/b", options=PushOptions(), progress=Silent(), deadline=Deadline.after(60))
    fetch(agent, "a/b", place / "back")
    assert tree(place / "back") == tree(source)


# The guest is hostile

DIR = Record(Kind.DIRECTORY, 0, b"d", mode=0o755)
EVIL = Record(Kind.SYMLINK, 0, b"evil", target=b"/etc")


def named(kind: int, name: bytes, rest: bytes = b"", parent: int = 0) -> bytes:
    return struct.pack(">BBHIqIIH", kind, 0, 0o644, parent, 0, 0, 0, len(name)) + name + rest


FILE = Record(Kind.FILE, 0, b"f", mode=0o644, size=3)
BODY = data_head(3) + b"abc"
BAD: dict[str, bytes] = {
    "dot dot": named(1, b".."),
    "a path": named(2, b"../../x", bytes(8)),
    "an absolute path": named(2, b"/etc/passwd", bytes(8)),
    "an unknown directory": named(2, b"x", bytes(8), parent=7),
    "a link as a directory": pack(EVIL) + named(2, b"passwd", bytes(8), parent=1),
    "a link then a directory in its place": pack(EVIL) + named(1, b"evil"),
    "a link then a file in its place": pack(EVIL) + named(2, b"evil", bytes(8)),
    "a file twice": (pack(FILE) + BODY) * 2,
    "a hard link to a symbolic link": pack(EVIL) + pack(Record(Kind.LINK, 0, b"h", target=b"evil")),
    "a hard link to nothing": pack(Record(Kind.LINK, 0, b"h", target=b"nothing")),
    "a hard link upwards": named(6, b"h", struct.pack(">IH", 0, 2) + b".."),
    "too many bytes": pack(FILE) + BODY + BODY,
    "too few bytes": pack(FILE) + data_head(1) + b"a",
    "too few bytes before another": pack(FILE) + data_head(1) + b"a" + pack(DIR),
    "bytes of no file": BODY,
    "a hole of no file": pack(Record(Kind.HOLE, size=5)),
    "a hole that is too large": pack(FILE) + pack(Record(Kind.HOLE, size=1 << 60)),
    "a removal": pack(Record(Kind.REMOVE, 0, b"x")),
    "attributes": pack(Record(Kind.ATTRIBUTES, 0, b"x")),
    "an impossible mode": pack(Record(Kind.FILE, 0, b"x", mode=0xFFFF)),
    "garbage": b"\xff" * 50,
    "half a record": pack(DIR)[:-1] + b"",
    "a path without end": b"".join(named(1, b"n" * 250, parent=number) for number in range(20)),
}


def hostile(body: bytes, *, kind: str = "directory", records: int | None = None) -> Callable[[GuestPeer], None]:
    """A guest that answers fetch with *body*."""

    def behave(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, {"kind": kind})
        peer.send(FrameType.ENTRIES, body)
        peer.send_json(FrameType.RESPONSE, {"records": records or 0, "bytes": 0, "changed": 0})
        peer.receive()

    return behave


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BAD.items()])
def test_a_hostile_guest_is_found_out_and_nothing_is_left(place: Path, body: bytes) -> None:
    with FakeGuest(hostile(body)) as guest, pytest.raises(GuestProtocol):
        fetch(guest, "/workspace", place / "got")
    assert list(place.iterdir()) == []
    assert tree(place.parent).keys() == {"beside", "place"}


def test_a_file_that_turns_out_a_link_does_not_become_the_destination(place: Path) -> None:
    body = pack(Record(Kind.SYMLINK, 0, b"f", target=b"/etc/passwd"))
    with (
        FakeGuest(hostile(body, kind="file", records=1)) as guest,
        pytest.raises(GuestProtocol, match="something else"),
    ):
        fetch(guest, "f", place / "got", replace=True)
    assert list(place.iterdir()) == []


def test_a_file_of_an_impossible_size_is_refused_before_it_is_made(place: Path) -> None:
    body = pack(Record(Kind.FILE, 0, b"f", size=1 << 62)) + pack(Record(Kind.HOLE, size=1 << 62))
    with FakeGuest(hostile(body)) as guest, pytest.raises(InvalidRequest, match="more than"):
        fetch(guest, "/workspace", place / "got")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "answer",
    [{"kind": "device"}, {"kind": 5}, {}, {"kind": "absent" * 9}],
    ids=json.dumps,
)
def test_a_wrong_answer_is_found_out(place: Path, answer: object) -> None:
    def behave(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, answer)
        peer.receive()

    with FakeGuest(behave) as guest, pytest.raises(GuestProtocol):
        fetch(guest, "/workspace", place / "got")


RECORDS = st.builds(
    Record,
    kind=st.sampled_from([Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.LINK, Kind.OTHER, Kind.HOLE]),
    dir=st.integers(0, 3),
    name=st.sampled_from([b"a", b"b", b"..", b".", b"a/b", b"evil", b"\xff", b"x" * 256]),
    mode=st.integers(0, 0o7777),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    size=st.integers(0, 4),
    target=st.sampled_from([b"a", b"b", b"/etc", b"../..", b"evil", b""]),
    target_dir=st.integers(0, 3),
    flags=st.just(0),
    uid=st.just(0),
    gid=st.just(0),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(RECORDS.map(pack), st.just(BODY), st.binary(max_size=40)), max_size=12))
def test_whatever_a_guest_sends_stays_in_the_destination(place: Path, parts: list[bytes]) -> None:
    before = tree(place.parent)
    with FakeGuest(hostile(b"".join(parts), records=len(parts))) as guest, contextlib.suppress(PyroError):
        fetch(guest, "/workspace", place / "got", max_bytes=1000)
    if (place / "got").exists():
        (place / "got").rename(place.parent / "place-was")
        shutil.rmtree(place.parent / "place-was")
    after = tree(place.parent)
    after.pop("place")
    before.pop("place")
    assert after == before


def test_a_landing_uses_nothing_that_follows(tmp_path: Path) -> None:
    """Even when records were not checked, a link that was made is never a way out."""
    (tmp_path / "tree").mkdir()
    root = os.open(tmp_path / "tree", os.O_RDONLY)
    found = Landing(tmp_path / "tree", root)
    found.take(DIR, b"d")
    (tmp_path / "tree" / "d").rmdir()
    (tmp_path / "tree" / "d").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        found.take(Record(Kind.FILE, 1, b"f"), b"d/f")
    found.close()
    os.close(root)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(("module", "name"), [(os, "open"), (fcntl, "flock")], ids=["open", "flock"])
def test_a_place_that_another_pull_sweeps_away_before_it_is_locked_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    real = getattr(module, name)

    def after_another_pull(*args: object, **keywords: object) -> object:
        monkeypatch.setattr(module, name, real)
        with landing(place):
            pass
        assert list(place.iterdir()) == []
        return real(*args, **keywords)

    monkeypatch.setattr(module, name, after_another_pull)
    with landing(place) as mine:
        assert mine.place.is_dir()
    assert getattr(module, name) is real
    assert list(place.iterdir()) == []


def test_a_place_is_removed_by_one_pull_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.rmtree
    removed: list[Path] = []

    def beside_another_pull(path: Path) -> None:
        if not removed:
            removed.append(path)
            with landing(place):
                assert path.exists()
        real(path)

    monkeypatch.setattr(shutil, "rmtree", beside_another_pull)
    with landing(place) as mine:
        expected = mine.place.parent
    assert removed == [expected]
    assert list(place.iterdir()) == []


def test_many_pulls_into_one_directory_hurt_each_other_not(agent: LocalAgent, place: Path) -> None:
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "f").write_text("x")

    def many(start: int) -> list[PullResult]:
        return [fetch(agent, "f", place / str(number)) for number in range(start, start + 20)]

    with ThreadPoolExecutor(4) as pool:
        assert sum(map(len, pool.map(many, range(0, 80, 20)))) == 80
    assert {path.name for path in place.iterdir()} == set(map(str, range(80)))
