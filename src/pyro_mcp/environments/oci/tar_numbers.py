"""Numbers and records as tar headers hold them, in all dialects."""

import base64
import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from pyro_mcp.errors import ImageRefused

RECORD_LENGTH_DIGITS = 10
DECIMAL = re.compile(rb"-?[0-9]{1,20}(?:\.[0-9]*)?")


def number(field: bytes) -> int:
    """Octal text, or GNU's base-256 form."""
    if field and field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise ImageRefused("a layer is no tar archive: a number in a header is damaged") from error


def decimal(text: bytes) -> int:
    """A number of an extended header; a fraction is dropped."""
    if not DECIMAL.fullmatch(text):
        raise ImageRefused("a layer is no tar archive: a number in an extended header is damaged")
    return int(text.partition(b".")[0])


def text_of(field: bytes) -> bytes:
    """The text up to the first NUL."""
    return field.split(b"\0", 1)[0]


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The ``length keyword=value`` records of an extended header. Values may hold any byte."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + RECORD_LENGTH_DIGITS)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            if not data[at:].strip(b"\0"):  # some writers pad within the size
                return
            raise ImageRefused("a layer is no tar archive: an extended header is damaged")
        end = at + int(length)
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 2 or data[end - 1 : end] != b"\n" or not equals:
            raise ImageRefused("a layer is no tar archive: an extended header is damaged")
        yield keyword, value
        at = end


def xattr(keyword: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of an extended attribute that a squashfs can hold; ``None`` for other records.

    Attributes that steer an overlay filesystem mean something only below the tool that wrote them. In the guest, which
    mounts the image below an overlay, they would hide or redirect files.
    """
    if keyword.startswith(b"SCHILY.xattr."):
        name = keyword[13:]
    elif keyword.startswith(b"LIBARCHIVE.xattr."):
        name = unquote_to_bytes(keyword[17:])
        try:
            value = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise ImageRefused("a layer is no tar archive: an extended attribute is damaged") from error
    else:
        return None
    kept = name.startswith((b"user.", b"trusted.", b"security.")) and b"=" not in name and b"\0" not in name
    if not kept or name.startswith((b"trusted.overlay.", b"user.overlay.")):
        return None
    return name, value
