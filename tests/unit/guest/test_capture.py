"""Both ends of a stream in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_mcp.guest.capture import CaptureSinks, HeadTail


def filled(limit: int, *pieces: bytes) -> HeadTail:
    capture = HeadTail(limit)
    for piece in pieces:
        capture.add(piece)
    return capture


def test_short_stream_is_kept_whole() -> None:
    capture = filled(10, b"01234", b"56789")
    assert capture.text() == "0123456789"
    assert not capture.truncated


def test_long_stream_keeps_both_ends_and_says_what_was_cut() -> None:
    capture = filled(8, b"head", b"middle of it", b"tail")
    assert capture.parts() == (b"head", b"tail")
    assert capture.text() == "head\n... 12 bytes cut ...\ntail"
    assert capture.truncated
    assert capture.total == 20


def test_line_about_the_cut_stands_on_a_line_of_its_own() -> None:
    assert filled(8, b"abc\n", bytes(9), b"tail").text() == "abc\n... 9 bytes cut ...\ntail"


def test_other_bytes_than_text_are_replaced() -> None:
    assert filled(100, b"caf\xe9 ", "café".encode()).text() == "caf\ufffd café"


@pytest.mark.parametrize("letter", ["é", "€", "😀"])
@pytest.mark.parametrize("limit", range(8, 24))
def test_cut_never_splits_a_character(letter: str, limit: int) -> None:
    capture = filled(limit, letter.encode() * 50)
    assert "\ufffd" not in capture.text()
    cut = int(capture.text().split("... ")[1].split()[0])
    assert cut + capture.text().count(letter) * len(letter.encode()) == capture.total


def test_lost_bytes_are_counted_and_named() -> None:
    capture = filled(100, b"some")
    capture.lose(7)
    assert capture.total == 11
    assert capture.truncated
    assert capture.text() == "some\n... 7 bytes lost ...\n"


def test_lost_bytes_count_as_cut_where_some_were_cut() -> None:
    capture = filled(4, b"abcdefgh")
    capture.lose(7)
    assert capture.text() == "ab\n... 11 bytes cut ...\ngh"


def test_limit_of_nothing_keeps_nothing() -> None:
    capture = filled(0, b"abc")
    assert capture.parts() == (b"", b"")
    assert capture.text() == "... 3 bytes cut ...\n"


def test_memory_stays_bounded_for_a_huge_stream() -> None:
    capture = HeadTail(1 << 16)
    piece = bytes(1 << 20)
    for _ in range(200):
        capture.add(memoryview(piece))
    assert capture.total == 200 << 20
    assert len(capture._head) + len(capture._tail) <= 2 << 16


@given(st.integers(0, 40), st.lists(st.binary(max_size=30), max_size=12))
def test_ends_are_those_of_the_stream_however_it_comes(limit: int, pieces: list[bytes]) -> None:
    capture = filled(limit, *pieces)
    whole = b"".join(pieces)
    head, tail = capture.parts()
    assert capture.total == len(whole)
    if len(whole) <= limit:
        assert head + tail == whole
        assert not capture.truncated
    else:
        assert len(head) + len(tail) == limit
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert capture.truncated


def test_sinks_keep_the_streams_apart() -> None:
    sinks = CaptureSinks(100)
    sinks.on_stdout(memoryview(b"out"))
    sinks.on_stderr(memoryview(b"err"))
    sinks.on_lost(0, 5)
    assert (sinks.stdout.text(), sinks.stdout.truncated) == ("out", False)
    assert (sinks.stderr.total, sinks.stderr.truncated) == (8, True)
