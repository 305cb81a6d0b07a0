"""Pushing a directory, to the real agent: what arrives, what crosses the link, and what a failure leaves."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from pyro_mcp.engine.workspace import PushOptions, SyncResult, push
from pyro_mcp.errors import Busy, InvalidRequest, PyroError, SourceChanged, SourceUnreadable, SyncConflict
from pyro_mcp.guest.sync.records import Kind, Record
from pyro_mcp.guest.sync.stage import Stage, outcome
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent

from ...local_agent import LocalAgent  # noqa: TID252 - the tests are no installed package
from .conftest import Push, tree


def fill(source: Path) -> None:
    """One of everything that has to survive."""
    (source / "empty").mkdir(mode=0o711)
    (source / "src").mkdir()
    (source / "src" / "note.txt").write_text("hello\n")
    script = source / "src" / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o777)
    (source / "src" / "secret").write_text("x")
    (source / "src" / "secret").chmod(0o400)
    (source / "-rf").write_text("dash")
    (source / "new\nline").write_text("newline")
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe"))).write_text("bytes")
    (source / "python").symlink_to("/usr/bin/python3")
    (source / "up").symlink_to("src/../src/note.txt")
    (source / "dangling").symlink_to("nowhere")
    os.link(source / "src" / "note.txt", source / "same.txt")
    with (source / "sparse").open("wb") as stream:
        stream.seek(5 << 20)
        stream.write(b"end")
        stream.truncate(9 << 20)
    (source / "zero").touch()
    os.utime(source / "src" / "note.txt", ns=(0, 1_234_567_890_123_456_789))
    os.utime(source / "dangling", ns=(0, 987_654_321_000_000_001), follow_symlinks=False)
    os.utime(source / "empty", ns=(0, -5_000_000_000))


def test_everything_survives(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    result = send()
    assert tree(agent.workspace) == tree(source)
    assert (agent.workspace / "same.txt").samefile(agent.workspace / "src" / "note.txt")
    assert (agent.workspace / "sparse").stat().st_blocks * 512 < 1 << 20
    assert result.entry_count == result.transferred_entries == len(tree(source))
    files = {
        path.lstat().st_ino: path.lstat().st_size
        for path in source.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert result.bytes_written == result.transferred_bytes == sum(files.values())
    assert (result.mode, result.destination, result.source_path) == ("directory", "/workspace", str(source))


def test_a_second_push_moves_nothing_and_a_third_only_what_changed(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    send()
    again = send()
    assert (again.transferred_entries, again.updated_entries, again.changes) == (0, 0, ())
    assert again.unchanged_entries == again.entry_count
    before = (agent.workspace / "-rf").stat().st_ino
    (source / "src" / "run.sh").write_text("#!/bin/sh\nexit 3\n")
    changed = send()
    assert [(change.action, change.path) for change in changed.changes] == [("replace", "src/run.sh")]
    assert (changed.transferred_entries, changed.transferred_bytes) == (1, 17)
    assert (agent.workspace / "-rf").stat().st_ino == before
    assert tree(agent.workspace) == tree(source)


def test_a_file_with_another_time_and_the_same_content_does_not_move(
    agent: LocalAgent, source: Path, send: Push
) -> None:
    fill(source)
    send()
    for name in ("src/note.txt", "sparse", "-rf"):
        os.utime(source / name, ns=(0, 42))
    (source / "zero").chmod(0o600)
    result = send()
    assert (result.transferred_entries, result.updated_entries) == (0, 4)
    assert tree(agent.workspace) == tree(source)
    (source / "-rf").write_text("DASH")
    assert send().transferred_entries == 1
    assert tree(agent.workspace) == tree(source)


def test_hard_links_follow_the_source(agent: LocalAgent, source: Path, send: Push) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_text("same")
        os.utime(source / name, ns=(0, 1))
    send()
    (source / "b").unlink()
    os.link(source / "a", source / "b")
    send()
    assert (agent.workspace / "a").samefile(agent.workspace / "b")
    (source / "b").unlink()
    os.link(source / "c", source / "b")
    send()
    assert (agent.workspace / "b").samefile(agent.workspace / "c")
    assert not (agent.workspace / "a").samefile(agent.workspace / "b")
    (source / "c").write_text("both")
    assert send().transferred_entries == 2
    assert (agent.workspace / "b").read_text() == "both"


def test_delete_makes_the_destination_like_the_source(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    send()
    gone = agent.workspace / "made" / "by" / "guest"
    gone.mkdir(parents=True)
    (gone / "file").write_text("x")
    (source / "src" / "secret").unlink()
    kept = send()
    assert kept.deleted_entries == 0
    assert (gone / "file").exists()
    result = send(delete=True)
    assert result.deleted_entries == 5
    assert tree(agent.workspace) == tree(source)


def test_a_dry_run_says_the_same_and_changes_nothing(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    send()
    (agent.workspace / "extra").mkdir()
    (source / "added").write_text("x")
    (source / "python").unlink()
    before = tree(agent.workspace)
    planned = send(delete=True, dry_run=True)
    assert planned.dry_run
    assert tree(agent.workspace) == before
    done = send(delete=True)
    assert done.changes == planned.changes
    assert (done.transferred_entries, done.deleted_entries) == (planned.transferred_entries, planned.deleted_entries)


def test_a_directory_and_a_file_of_one_name_need_delete(agent: LocalAgent, source: Path, send: Push) -> None:
    (source / "a").mkdir()
    (source / "a" / "x").write_text("x")
    (source / "b").write_text("file")
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "a").write_text("guest")
    (agent.workspace / "b").mkdir()
    (agent.workspace / "b" / "y").write_text("y")
    before = tree(agent.workspace)
    with pytest.raises(SyncConflict, match="/workspace/a is no directory"):
        send()
    assert tree(agent.workspace) == before
    send(delete=True)
    assert tree(agent.workspace) == tree(source)


def test_a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to(
    agent: LocalAgent, source: Path, send: Push, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("safe")
    agent.workspace.mkdir(exist_ok=True)
    (agent.workspace / "a").symlink_to(outside)
    (source / "a").write_text("new")
    send()
    assert (agent.workspace / "a").read_text() == "new"
    assert outside.read_text() == "safe"


@pytest.mark.parametrize(
    "destination", ["", "..", "/", "/etc", "/workspace/../etc", "a/../../b", "/workspacex", "a\0b"]
)
def test_the_destination_stays_inside_the_workspace(send: Push, destination: str) -> None:
    with pytest.raises(InvalidRequest, match="workspace destination"):
        send(destination=destination)


@pytest.mark.parametrize("destination", ["link", "link/sub", "/workspace/dir/link/deep"])
def test_a_symbolic_link_in_the_guest_leads_no_push_out(
    agent: LocalAgent, source: Path, send: Push, tmp_path: Path, destination: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (agent.workspace / "dir").mkdir(parents=True)
    for link in ("link", "dir/link"):
        (agent.workspace / link).symlink_to(outside)
    (source / "a").write_text("a")
    with pytest.raises(PyroError):
        send(destination=destination)
    assert list(outside.iterdir()) == []


def test_a_destination_below_is_made(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    assert send(destination="a/b//./c").destination == "/workspace/a/b/c"
    assert tree(agent.workspace / "a" / "b" / "c") == tree(source)
    (agent.workspace / "a" / "b").chmod(0o700)
    (source / "more").write_text("x")
    send(destination="/workspace/a/b/c")
    assert (agent.workspace / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_what_cannot_travel_is_left_out_with_a_warning(agent: LocalAgent, source: Path, send: Push) -> None:
    os.mkfifo(source / "fifo")
    (source / "out").symlink_to("../../etc/passwd")
    (source / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(source / "socket"))
        result = send()
    assert sorted(result.warnings) == [
        "fifo was left out: it is a FIFO",
        "out is a symbolic link that leads out of the workspace",
        "socket was left out: it is a socket",
    ]
    assert sorted(path.name for path in agent.workspace.iterdir()) == ["file", "out"]


def test_set_id_bits_do_not_travel(agent: LocalAgent, source: Path, send: Push) -> None:
    (source / "tool").write_text("x")
    (source / "tool").chmod(0o6755)
    send()
    assert (agent.workspace / "tool").stat().st_mode & 0o7777 == 0o755


def test_ignore_files_are_respected_when_asked_to(agent: LocalAgent, source: Path, send: Push) -> None:
    (source / ".gitignore").write_text("*.log\nbuild/\n!keep.log\n")
    (source / ".pyroignore").write_text("*.tmp\n")
    (source / "sub").mkdir()
    (source / "sub" / ".gitignore").write_text("!a.log\n/only\n")
    (source / "build").mkdir()
    for name in ("a.log", "keep.log", "x.tmp", "only", "build/o", "sub/a.log", "sub/b.log", "sub/only"):
        (source / name).write_text("x")
    send(respect_ignore=True)
    names = {str(path.relative_to(agent.workspace)) for path in agent.workspace.rglob("*") if path.is_file()}
    assert names == {".gitignore", ".pyroignore", "keep.log", "only", "sub/.gitignore", "sub/a.log"}
    (agent.workspace / "build").mkdir()
    (agent.workspace / "c.log").write_text("the guest's own")
    (agent.workspace / "stale").write_text("x")
    assert send(respect_ignore=True, delete=True).deleted_entries == 1
    assert (agent.workspace / "build").is_dir()
    assert send(delete=True).deleted_entries == 1  # c.log; build and the rest come from the source


def test_limits_name_what_is_too_much(source: Path, send: Push) -> None:
    for number in range(5):
        (source / str(number)).write_bytes(bytes(100))
    with pytest.raises(InvalidRequest, match="more than 4 entries"):
        send(max_entries=4)
    with pytest.raises(InvalidRequest, match="more than 450 bytes"):
        send(max_bytes=450)


def test_a_source_that_is_missing_or_no_source_says_so(source: Path, send: Push) -> None:
    with pytest.raises(SourceUnreadable, match="No such file"):
        send(source / "missing")
    (source / "file.txt").write_text("x")
    with pytest.raises(InvalidRequest, match="neither a directory nor an archive"):
        send(source / "file.txt")


def test_a_file_that_cannot_be_read_changes_nothing(
    agent: LocalAgent, source: Path, send: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    real = os.open

    def refuse(path: bytes | str, *rest: int, **options: int) -> int:
        if os.fsencode(path).endswith(b"/b"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(SourceUnreadable, match=r"cannot read .*/b: Permission denied"):
        send()
    assert tree(agent.workspace) == {}


def disturb(source: Path, how: str) -> None:
    """Change both files, one of which is being read, or their directory."""
    (source / "new").write_bytes(bytes(2 << 20))
    for name in ("a", "b"):
        if how == "grow":
            with (source / name).open("ab") as stream:
                stream.write(b"x")
        elif how == "touch":
            os.utime(source / name, ns=(1, 1))
        elif how == "replace":
            (source / name).write_bytes(bytes(2 << 20))
        elif how == "remove":
            (source / name).unlink()
        elif how == "link":
            (source / name).unlink()
            (source / name).symlink_to("/etc/passwd")


@pytest.mark.parametrize("how", ["grow", "touch", "replace", "remove", "add", "link"])
def test_a_source_that_changes_underneath_is_reported_and_changes_nothing(
    agent: LocalAgent, source: Path, how: str
) -> None:
    for name in ("a", "b"):
        (source / name).write_bytes(bytes(2 << 20))

    class Change(Silent):
        def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
            assert done_bytes <= (total_bytes or 0)
            if not changed:
                changed.append(how)
                disturb(source, how)

    changed: list[str] = []
    with pytest.raises(SourceChanged):
        push(agent, source, options=PushOptions(), progress=Change(), deadline=Deadline.after(60))
    assert changed == [how]
    assert tree(agent.workspace) == {}


def test_two_pushes_at_once_leave_one_of_the_two_trees(agent: LocalAgent, tmp_path: Path) -> None:
    trees = []
    for letter in "ab":
        place = tmp_path / letter
        place.mkdir()
        for number in range(200):
            (place / str(number)).write_text(letter * number)
        trees.append(place)
    results: list[SyncResult] = []

    def go(place: Path) -> None:
        options = PushOptions(delete=True)
        limit = Deadline.after(60)
        results.extend(push(agent, place, options=options, progress=Silent(), deadline=limit) for _ in range(3))

    threads = [threading.Thread(target=go, args=(place,)) for place in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert tree(agent.workspace) in [tree(place) for place in trees]


def test_a_push_that_waits_too_long_for_another_is_busy(agent: LocalAgent, source: Path) -> None:
    with agent.open(Deadline.after(10)) as session:
        Stage(session, Deadline.after(10)).begin(Silent())
        with pytest.raises(Busy):
            push(agent, source, options=PushOptions(), progress=Silent(), deadline=Deadline.after(0.3))


def test_an_answer_that_was_lost_is_asked_for_again(agent: LocalAgent) -> None:
    limit = Deadline.after(10)
    with agent.open(limit) as session:
        stage = Stage(session, limit)
        stage.begin(Silent())
        stage.add(Record(Kind.FILE, 0, b"f", mode=0o644, size=0))
        done = stage.commit()
    with agent.open(limit) as session:
        assert outcome(session, stage.id, limit) == done
        assert outcome(session, "f" * 16, limit) is None


def test_a_client_that_goes_leaves_the_old_tree(agent: LocalAgent, source: Path, send: Push) -> None:
    fill(source)
    send()
    before = tree(agent.workspace)
    limit = Deadline.after(10)
    with agent.open(limit) as session:
        stage = Stage(session, limit)
        stage.begin(Silent())
        stage.add(Record(Kind.REMOVE, 0, b"src"))
        stage.add(Record(Kind.FILE, 0, b"half", mode=0o644, size=1 << 20))
        stage.data(bytes(1000))
    deadline = time.monotonic() + 10
    while agent.staged() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert agent.staged() == []
    assert tree(agent.workspace) == before
