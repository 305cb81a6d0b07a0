"""What a task's command wrote, in bounded files."""

from pathlib import Path

import pytest

from pyro_mcp.engine.tasks.outputs import HEAD_MOST, TAIL_MOST, OutputFile, read_output


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "000001.stdout"


def written(path: Path, *pieces: bytes) -> OutputFile:
    output = OutputFile(path)
    for piece in pieces:
        output.add(piece)
    output.finish()
    output.close()
    return output


def test_short_output_is_kept_whole_and_the_file_is_read_only_afterwards(path: Path) -> None:
    output = written(path, b"one\n", b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o400
    assert (output.total, output.truncated) == (8, False)


def test_output_can_be_read_while_it_grows(path: Path) -> None:
    output = OutputFile(path)
    output.add(b"so far")
    assert read_output(path) == b"so far"
    output.close()


def test_long_output_keeps_its_beginning_and_its_end_and_says_what_was_cut(path: Path) -> None:
    pieces = [b"%07d\n" % number for number in range(500_000)]
    output = written(path, *[b"".join(pieces[start : start + 1000]) for start in range(0, len(pieces), 1000)])
    data = path.read_bytes()
    cut = 8 * 500_000 - HEAD_MOST - TAIL_MOST
    assert data.startswith(b"0000000\n0000001\n")
    assert data.endswith(b"0499998\n0499999\n")
    assert b"\n... %d bytes cut ...\n" % cut in data
    assert len(data) < HEAD_MOST + TAIL_MOST + 100
    assert (output.total, output.truncated) == (8 * 500_000, True)


def test_output_of_just_the_limit_is_not_cut(path: Path) -> None:
    output = written(path, b"a" * HEAD_MOST, b"b" * TAIL_MOST)
    assert not output.truncated
    assert path.stat().st_size == HEAD_MOST + TAIL_MOST


def test_another_process_goes_on_where_the_file_ends(path: Path) -> None:
    first = OutputFile(path)
    first.add(b"one ")
    first.close()
    second = OutputFile(path)
    assert second.offset == 4
    second.add(b"two")
    second.finish()
    second.close()
    assert path.read_bytes() == b"one two"


def test_bytes_that_never_came_are_counted_where_they_are_missing(path: Path) -> None:
    output = OutputFile(path)
    output.add(b"before")
    output.lose(10)
    output.add(b"after")
    output.finish()
    output.close()
    assert path.read_bytes() == b"before\n... 10 bytes cut ...\nafter"
    assert (output.total, output.truncated) == (21, True)


def test_a_complete_file_is_not_written_again(path: Path) -> None:
    written(path, b"all")
    late = OutputFile(path)
    assert late.complete
    late.add(b"more")
    late.finish()
    late.close()
    assert path.read_bytes() == b"all"


def test_a_link_in_the_place_of_a_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    path.symlink_to(outside)
    with pytest.raises(RuntimeError):
        OutputFile(path)
    assert read_output(path) == b""
    assert outside.read_bytes() == b"theirs"
