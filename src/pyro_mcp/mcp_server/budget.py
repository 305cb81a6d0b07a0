"""Results of bounded size: hosts cut what is long, and a model pays for every character.

A result goes over the wire twice, as text and as structured content, so each of the two may take half of
``RESULT_CHARS_MOST``. Sizes are those of the JSON, where a control character takes six.
"""

import json
from collections.abc import Mapping
from typing import Any

from pyro_mcp.mcp_server.spool import Spool

RESULT_CHARS_MOST = 40_000
OUTPUT_CHARS_MOST = 16_000
OUTPUT_CHARS_DEFAULT = 12_000
RECORD_CHARS_MOST = RESULT_CHARS_MOST // 2 - OUTPUT_CHARS_MOST - 500
BYTES_PER_CHAR = 4
NOTE_CHARS = 160  # what the line about missing bytes takes
LADDER = ((2000, 100), (800, 40), (300, 20), (100, 8), (40, 3))
STREAMS = ("stdout", "stderr")


def cost(text: str) -> int:
    """The characters *text* takes in JSON."""
    return len(json.dumps(text, ensure_ascii=False)) - 2


def beginning(text: str, budget: int) -> str:
    """As much of the beginning of *text* as costs at most *budget*."""
    cut = text[:budget]
    while (spent := cost(cut)) > budget:
        cut = cut[: min(len(cut) * budget // spent, len(cut) - 1)]
    return cut


def ending(text: str, budget: int) -> str:
    """As much of the end of *text* as costs at most *budget*."""
    return beginning(text[::-1], budget)[::-1]


def middle_out(text: str, budget: int, note: str = "...") -> str:
    """*text*, or its beginning and its end around *note*, for about *budget*."""
    if cost(text) <= budget:
        return text
    half = max(0, budget - cost(note)) // 2
    return f"{beginning(text, half)}{note}{ending(text, half)}"


def whole_characters(data: bytes, *, more: bool) -> bytes:
    """*data* without a UTF-8 character that its end cuts in two, if there is *more* to come."""
    if not more:
        return data
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return data[:-back] if needed > back else data
    return data


def page(spool: Spool, cursor: int, budget: int) -> tuple[int, str, int]:
    """The text from *cursor* for at most *budget*: where it begins, the text, where to read on."""
    start, data = spool.read(cursor, budget * BYTES_PER_CHAR)
    data = whole_characters(data, more=start + len(data) < spool.total)
    for _ in range(64):  # the length of the text says little about its bytes where they are no UTF-8
        text = data.decode(errors="replace")
        spent = cost(text)
        if spent <= budget:
            return start, text, start + len(data)
        data = whole_characters(data[: max(1, min(len(data) * budget // spent, len(data) - 1))], more=True)
    return start, "", start


def shown(spool: Spool, budget: int, job_id: str, stream: str) -> tuple[str, bool]:
    """What a result shows of a stream, and whether it is cut: a third is its beginning, the rest its end."""
    _, text, end = page(spool, 0, budget)
    if end >= spool.total:
        return text, False
    _, head, head_end = page(spool, 0, budget // 3)
    _, data = spool.read(-budget * BYTES_PER_CHAR, budget * BYTES_PER_CHAR)
    tail = ending(data.decode(errors="replace"), budget - cost(head) - NOTE_CHARS)
    missing = max(0, spool.total - head_end - len(tail.encode()))
    note = f"\n... about {missing} bytes cut: job_read job_id={job_id} stream={stream} cursor={head_end} reads on ...\n"
    return f"{head}{note}{tail}", True


def shares(wanted: Mapping[str, int], budget: int) -> dict[str, int]:
    """*budget* divided: everybody gets an equal share at least, what one does not want goes to the others."""
    left, open_ones, given = budget, dict(wanted), dict.fromkeys(wanted, 0)
    while open_ones:
        fair = left // len(open_ones)
        content = {name: want for name, want in open_ones.items() if want <= fair}
        if not content:
            return given | dict.fromkeys(open_ones, fair)
        given |= content
        left -= sum(content.values())
        open_ones = {name: want for name, want in open_ones.items() if name not in content}
    return given


def bounded(value: Mapping[str, Any], budget: int = RECORD_CHARS_MOST) -> dict[str, Any]:
    """*value* with long texts and lists cut, so that its JSON takes about *budget* at most."""
    for text_most, list_most in LADDER:
        cut = {key: _cut(item, text_most, list_most) for key, item in value.items()}
        if len(json.dumps(cut, ensure_ascii=False)) <= budget:
            return cut
    return cut


def _cut(value: Any, text_most: int, list_most: int) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return middle_out(value, text_most)
    if isinstance(value, list | tuple):
        return [_cut(item, text_most, list_most) for item in value[:list_most]]
    if isinstance(value, dict):
        return {key: _cut(item, text_most, list_most) for key, item in value.items()}
    return value
