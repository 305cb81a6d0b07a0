"""Where the data of sparse files lies: GNU tar's four ways to say it."""

from collections.abc import Callable, Sequence

from pyro_mcp.environments.oci.tar_numbers import decimal, number
from pyro_mcp.errors import ImageRefused

Pieces = list[tuple[int, int]]
PIECES_MOST = 1_000_000
BLOCK_SIZE = 512
DAMAGED = "a layer is no tar archive: the map of a sparse file is damaged"


def old_gnu(header: bytes, read_block: Callable[[], bytes]) -> tuple[int, Pieces]:
    """Size and pieces of a member of type ``S``: four in the header, more in the blocks after it."""
    pieces = _pairs(header[386:482])
    more = header[482] != 0
    while more:
        block = read_block()
        pieces += _pairs(block[:504])
        more = block[504] != 0
        _bound(pieces)
    return number(header[483:495]), pieces


def _pairs(field: bytes) -> Pieces:
    rows = (field[at : at + 24] for at in range(0, len(field) - 23, 24))
    return [(number(row[:12]), number(row[12:])) for row in rows if row[0]]


def in_records(found: Sequence[tuple[bytes, bytes]]) -> Pieces:
    """The pieces of formats 0.0 (repeated records) and 0.1 (one list)."""
    values = dict(found)
    if b"GNU.sparse.map" in values:
        numbers = [decimal(text) for text in values[b"GNU.sparse.map"].split(b",") if text]
    else:
        wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        numbers = [decimal(value) for keyword, value in found if keyword in wanted]
    if len(numbers) % 2:
        raise ImageRefused(DAMAGED)
    return _bound(list(zip(numbers[::2], numbers[1::2], strict=True)))


def in_data(read_block: Callable[[], bytes]) -> tuple[int, Pieces]:
    """Format 1.0: numbers on lines before the data, padded to a block. Also the bytes that were read."""
    buffer, used, numbers = b"", 0, list[int]()
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = buffer.partition(b"\n")
        if not newline:
            if len(buffer) > BLOCK_SIZE:
                raise ImageRefused(DAMAGED)
            buffer += read_block()
            used += BLOCK_SIZE
            continue
        numbers.append(decimal(line))
        buffer = rest
        if len(numbers) == 1:
            wanted = 1 + 2 * numbers[0]
            if not 0 <= numbers[0] <= PIECES_MOST:
                raise ImageRefused(DAMAGED)
    return used, list(zip(numbers[1::2], numbers[2::2], strict=True))


def check(pieces: Pieces, size: int, stored: int) -> Pieces:
    """*pieces* if they lie in order within *size* and add up to the *stored* bytes."""
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0:
            raise ImageRefused(DAMAGED)
        end = offset + length
    if end > size or sum(length for _, length in pieces) != stored:
        raise ImageRefused(DAMAGED)
    return [piece for piece in pieces if piece[1]]


def _bound(pieces: Pieces) -> Pieces:
    if len(pieces) > PIECES_MOST:
        raise ImageRefused(DAMAGED)
    return pieces
