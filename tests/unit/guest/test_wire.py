"""The bytes of the protocol: golden frames, and a parser that nothing can break."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest import wire
from pyro_mcp.guest.wire import FROM_GUEST, FROM_HOST, FrameReader, FrameType, Greeting

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "wire.json").read_text())
ALL = frozenset(FrameType)
SESSION = 0x01020304


def rows(name: str) -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in GOLDEN[name]]


def take_all(reader: FrameReader, data: bytes) -> list[tuple[FrameType, bytes]]:
    return [(frame.kind, bytes(frame.payload)) for frame in reader.feed(data)]


def test_golden_file_is_of_our_generation() -> None:
    assert GOLDEN["generation"] == wire.GENERATION


@pytest.mark.parametrize("row", rows("hellos"))
def test_greeting_has_its_golden_bytes(row: dict[str, Any]) -> None:
    greeting = Greeting(row["generation"], row["session"], bytes.fromhex(row["nonce_hex"]))
    pack, unpack = {
        "hello": (wire.pack_hello, wire.unpack_hello),
        "welcome": (wire.pack_welcome, wire.unpack_welcome),
    }[row["kind"]]
    assert pack(greeting).hex() == row["hex"]
    assert unpack(bytes.fromhex(row["hex"])) == greeting


@pytest.mark.parametrize("row", rows("frames"))
def test_frame_has_its_golden_bytes(row: dict[str, Any]) -> None:
    kind, payload = FrameType(row["type"]), bytes.fromhex(row["payload_hex"])
    assert wire.pack_frame(row["session"], kind, payload).hex() == row["hex"]
    assert take_all(FrameReader(row["session"], ALL), bytes.fromhex(row["hex"])) == [(kind, payload)]


@pytest.mark.parametrize("row", [row for row in rows("invalid") if row.values[0]["reason"] != "truncated"])
def test_golden_invalid_frame_is_refused_for_good(row: dict[str, Any]) -> None:
    reader = FrameReader(row["session"], ALL)
    with pytest.raises(GuestProtocol):
        take_all(reader, bytes.fromhex(row["hex"]))
    with pytest.raises(GuestProtocol):
        reader.take()


@pytest.mark.parametrize("row", [row for row in rows("invalid") if row.values[0]["reason"] == "truncated"])
def test_truncated_frame_is_waited_for(row: dict[str, Any]) -> None:
    reader = FrameReader(row["session"], ALL)
    assert take_all(reader, bytes.fromhex(row["hex"])) == []
    assert reader.buffered == len(row["hex"]) // 2


@pytest.mark.parametrize("kind", sorted(FROM_HOST))
def test_host_refuses_frames_only_a_host_may_send(kind: FrameType) -> None:
    with pytest.raises(GuestProtocol):
        take_all(FrameReader(SESSION), wire.pack_frame(SESSION, kind))


def test_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    header = SESSION.to_bytes(4, "big") + bytes([FrameType.STDOUT, 0, 0, 0]) + (262_145).to_bytes(4, "big")
    with pytest.raises(GuestProtocol, match="262145"):
        take_all(FrameReader(SESSION), header)


def test_largest_frame_passes_and_a_larger_one_cannot_be_made() -> None:
    payload = bytes(wire.PAYLOAD_MOST)
    data = wire.pack_frame(SESSION, FrameType.STDOUT, payload) * 3
    assert take_all(FrameReader(SESSION), data) == [(FrameType.STDOUT, payload)] * 3
    with pytest.raises(ValueError, match="does not fit"):
        wire.pack_frame(SESSION, FrameType.STDIN, payload + b"x")


def test_repeated_welcome_is_skipped_between_frames_as_often_as_allowed() -> None:
    welcome = wire.pack_welcome(Greeting(1, SESSION, bytes(16)))
    frame = wire.pack_frame(SESSION, FrameType.RESPONSE, b"{}")
    reader = FrameReader(SESSION, welcome=welcome, repeats=2)
    assert len(take_all(reader, welcome + frame + welcome + frame)) == 2
    with pytest.raises(GuestProtocol):
        take_all(reader, welcome)


def test_welcome_with_another_nonce_is_no_frame() -> None:
    welcome = wire.pack_welcome(Greeting(1, SESSION, bytes(16)))
    other = wire.pack_welcome(Greeting(1, SESSION, b"x" * 16))
    with pytest.raises(GuestProtocol):
        take_all(FrameReader(SESSION, welcome=welcome, repeats=2), other)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wire.HELLO_MAGIC,
        wire.pack_hello(Greeting(1, 1, bytes(16))),
        wire.WELCOME_MAGIC + bytes.fromhex("0001 0001 00000001") + bytes(16),
        wire.WELCOME_MAGIC + bytes.fromhex("0001 0000 00000000") + bytes(16),
        wire.WELCOME_MAGIC + bytes.fromhex("0001 0000 80000000") + bytes(16),
    ],
)
def test_wrong_welcome_is_refused(data: bytes) -> None:
    with pytest.raises(GuestProtocol):
        wire.unpack_welcome(data)


FRAMES = st.lists(st.tuples(st.sampled_from(sorted(FROM_GUEST)), st.binary(max_size=300)), max_size=12)
CUTS = st.lists(st.integers(0, 4000), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.integers(1, wire.SESSION_MOST), FRAMES, CUTS)
def test_frames_come_out_as_they_went_in_however_they_are_split(
    session: int, frames: list[tuple[FrameType, bytes]], cuts: list[int]
) -> None:
    reader = FrameReader(session)
    data = b"".join(wire.pack_frame(session, kind, payload) for kind, payload in frames)
    taken = [frame for piece in pieces(data, cuts) for frame in take_all(reader, piece)]
    assert taken == frames
    assert reader.buffered == 0


def near_frames() -> st.SearchStrategy[bytes]:
    """Bytes that look like frames for a while."""
    header = st.builds(
        lambda kind, rest, length: SESSION.to_bytes(4, "big") + bytes([kind]) + rest + length.to_bytes(4, "big"),
        st.integers(0, 24),
        st.sampled_from([bytes(3), b"\0\0\1"]),
        st.one_of(st.integers(0, 64), st.integers(wire.PAYLOAD_MOST - 1, wire.PAYLOAD_MOST + 1), st.just(0xFFFFFFFF)),
    )
    whole = st.builds(lambda payload: wire.pack_frame(SESSION, FrameType.STDOUT, payload), st.binary(max_size=64))
    welcome = st.just(wire.pack_welcome(Greeting(1, SESSION, bytes(16))))
    return st.lists(st.one_of(header, whole, welcome, st.binary(max_size=64)), max_size=8).map(b"".join)


@given(st.one_of(st.binary(max_size=2000), near_frames()), CUTS)
def test_arbitrary_bytes_raise_nothing_but_guest_protocol_and_never_pile_up(data: bytes, cuts: list[int]) -> None:
    reader = FrameReader(SESSION, welcome=wire.pack_welcome(Greeting(1, SESSION, bytes(16))), repeats=3)
    try:
        for piece in pieces(data, cuts):
            for frame in reader.feed(piece):
                assert len(frame.payload) <= wire.PAYLOAD_MOST
            assert reader.buffered <= wire.FRAME_MOST
    except GuestProtocol:
        assert reader.buffered <= wire.FRAME_MOST


def test_reader_never_offers_more_room_than_one_largest_frame() -> None:
    reader = FrameReader(SESSION)
    assert len(reader.space()) == wire.FRAME_MOST
    start = wire.pack_frame(SESSION, FrameType.STDOUT, bytes(wire.PAYLOAD_MOST))[:-1]
    assert take_all(reader, start) == []
    assert len(reader.space()) == 1
