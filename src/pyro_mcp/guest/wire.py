"""The bytes of the guest protocol (docs/protocol.md): greetings and frames. Pure: no input, no output.

Everything the guest sends passes through :class:`FrameReader`. It holds at most one whole frame, whatever
comes.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from pyro_mcp.errors import GuestProtocol

GENERATION: Final = 1
SESSION_MOST: Final = 0x7FFFFFFF
PAYLOAD_MOST: Final = 262_144
HELLO_MAGIC: Final = bytes.fromhex("ff5059524f2d4c494e4b0d0a1a0a00fe")
WELCOME_MAGIC: Final = bytes.fromhex("fe5059524f2d4c494e4b0d0a1a0a00ff")
NONCE_SIZE: Final = 16
GREETING_SIZE: Final = 40
RESYNC: Final = bytes(262_208)  # more than one whole frame of zeros: ends whatever frame the agent is in

_GREETING = struct.Struct(">16sHHI16s")
_HEADER = struct.Struct(">IB3sI")
_TRAILER = struct.Struct(">I")
_NOTHING_RESERVED = bytes(3)
HEADER_SIZE: Final = _HEADER.size
TRAILER_SIZE: Final = _TRAILER.size
FRAME_MOST: Final = HEADER_SIZE + PAYLOAD_MOST + TRAILER_SIZE


class FrameType(IntEnum):
    """What a frame is. Below 16 the host sends it, from 16 on the guest."""

    REQUEST = 1
    STDIN = 2
    STDIN_EOF = 3
    SIGNAL = 4
    RESIZE = 5
    PUSH = 6
    TUNNEL_IN = 7
    RESPONSE = 16
    STDOUT = 17
    STDERR = 18
    EXIT = 19
    ERROR = 20
    CREDIT = 21
    ENTRIES = 22
    TUNNEL_OUT = 23


FROM_HOST: Final = frozenset(kind for kind in FrameType if kind < FrameType.RESPONSE)
FROM_GUEST: Final = frozenset(FrameType) - FROM_HOST


class Greeting(NamedTuple):
    """What HELLO and WELCOME carry."""

    generation: int
    session: int
    nonce: bytes


class Frame(NamedTuple):
    """One frame. *payload* is a view into the reader's buffer: use it before the reader takes more bytes."""

    kind: FrameType
    payload: memoryview


def pack_hello(greeting: Greeting) -> bytes:
    """The 40 bytes with which the host opens a session."""
    return _GREETING.pack(HELLO_MAGIC, greeting.generation, 0, greeting.session, greeting.nonce)


def pack_welcome(greeting: Greeting) -> bytes:
    """The 40 bytes with which the agent answers."""
    return _GREETING.pack(WELCOME_MAGIC, greeting.generation, 0, greeting.session, greeting.nonce)


def unpack_hello(data: bytes) -> Greeting:
    """The greeting in a HELLO; raises GuestProtocol when it is none."""
    return _unpack_greeting(data, HELLO_MAGIC)


def unpack_welcome(data: bytes) -> Greeting:
    """The greeting in a WELCOME; raises GuestProtocol when it is none."""
    return _unpack_greeting(data, WELCOME_MAGIC)


def _unpack_greeting(data: bytes, expected: bytes) -> Greeting:
    if len(data) != GREETING_SIZE:
        raise GuestProtocol(f"a greeting has {GREETING_SIZE} bytes, not {len(data)}")
    magic, generation, zero, session, nonce = _GREETING.unpack(data)
    if magic != expected:
        raise GuestProtocol("a greeting starts with other bytes than it should")
    if generation == GENERATION and (zero or not 0 < session <= SESSION_MOST):
        raise GuestProtocol("a greeting carries values that are not allowed")
    return Greeting(generation, session, nonce)


def envelope(session: int, kind: FrameType, length: int) -> tuple[bytes, bytes]:
    """The header and the trailer around a payload of *length* bytes; at most PAYLOAD_MOST."""
    if not 0 <= length <= PAYLOAD_MOST:
        raise ValueError(f"a payload of {length} bytes does not fit into a frame")
    return _HEADER.pack(session, kind, _NOTHING_RESERVED, length), _TRAILER.pack(session ^ 0xFFFFFFFF)


def pack_frame(session: int, kind: FrameType, payload: bytes = b"") -> bytes:
    """A whole frame."""
    header, trailer = envelope(session, kind, len(payload))
    return header + payload + trailer


class FrameReader:
    """An incremental parser of one session's frames, with a buffer of exactly one largest frame.

    Put bytes where :meth:`space` says, tell :meth:`filled`, then :meth:`take` frames until there is none.
    Every byte is moved at most once. Frames of other kinds than *accepted* are invalid. Up to *repeats*
    greetings equal to *welcome* are skipped between frames. Invalid bytes raise GuestProtocol, then and at
    every later call.
    """

    def __init__(
        self,
        session: int,
        accepted: frozenset[FrameType] = FROM_GUEST,
        *,
        welcome: bytes = b"",
        repeats: int = 0,
    ) -> None:
        self._session = session
        self._kinds = {int(kind): kind for kind in accepted}
        self._welcome = welcome
        self._repeats = repeats
        self._buffer = bytearray(FRAME_MOST)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0

    @property
    def buffered(self) -> int:
        """Bytes held that belong to no frame yet taken."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Where the next bytes go; empty only while a whole frame waits to be taken.

        Ends the life of all payloads.
        """
        if self._start:
            rest = self.buffered
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """*count* bytes have been put into the space."""
        self._end += count

    def take(self) -> Frame | None:
        """The next whole frame, or ``None``; raises GuestProtocol."""
        while self._repeats and self._skip_welcome():
            pass
        if self.buffered < HEADER_SIZE:
            return None
        session, number, reserved, length = _HEADER.unpack_from(self._buffer, self._start)
        kind = self._kinds.get(number)
        if session != self._session:
            raise GuestProtocol("the guest sent a frame of another session")
        if kind is None or reserved != _NOTHING_RESERVED:
            raise GuestProtocol(f"the guest sent a frame of an unknown kind ({number})")
        if length > PAYLOAD_MOST:
            raise GuestProtocol(f"the guest announced a frame of {length} bytes")
        payload = self._start + HEADER_SIZE
        end = payload + length
        if self._end < end + TRAILER_SIZE:
            return None
        if _TRAILER.unpack_from(self._buffer, end)[0] != session ^ 0xFFFFFFFF:
            raise GuestProtocol("the guest sent a frame with a wrong trailer")
        self._start = end + TRAILER_SIZE
        return Frame(kind, self._view[payload:end])

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Put *data* in by pieces and yield the frames; each payload lives until the next is asked for."""
        rest = memoryview(data)
        while rest:
            space = self.space()
            count = min(len(space), len(rest))
            space[:count] = rest[:count]
            self.filled(count)
            rest = rest[count:]
            while (frame := self.take()) is not None:
                yield frame

    def _skip_welcome(self) -> bool:
        """Drop one repeated welcome at the front.

        A frame never starts like one: sessions stay below 0x80000000.
        """
        if self.buffered < GREETING_SIZE or self._buffer[self._start] != self._welcome[0]:
            return False
        if self._view[self._start : self._start + GREETING_SIZE] != self._welcome:
            return False
        self._start += GREETING_SIZE
        self._repeats -= 1
        return True
