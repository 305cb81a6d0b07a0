"""Output of bounded size, whatever it holds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_mcp.mcp_server import budget
from pyro_mcp.mcp_server import spool as spools
from pyro_mcp.mcp_server.spool import Spool


def filled(data: bytes, directory: Path | None = None) -> Spool:
    spool = Spool(directory)
    for at in range(0, len(data), 1000):
        spool.add(data[at : at + 1000])
    return spool


@given(st.binary(max_size=3000), st.integers(min_value=400, max_value=2000))
def test_pages_are_bounded_and_together_they_are_everything(data: bytes, most: int) -> None:
    spool, cursor, pieces = filled(data), 0, []
    while cursor < len(data):
        start, text, end = budget.page(spool, cursor, most)
        assert start == cursor < end
        assert budget.cost(text) <= most
        pieces.append(text)
        cursor = end
    if data.decode(errors="ignore").encode() == data:
        assert "".join(pieces) == data.decode()


@given(st.binary(max_size=6000), st.integers(min_value=400, max_value=1500))
def test_what_is_shown_is_bounded(data: bytes, most: int) -> None:
    text, cut = budget.shown(filled(data), most, "0" * 16, "stdout")
    assert budget.cost(text) <= most
    assert cut or text == data.decode(errors="replace")


def test_a_spool_keeps_the_beginning_in_a_file_and_the_end_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "HEAD_MOST", 5000)
    monkeypatch.setattr(spools, "TAIL_MOST", 2000)
    data = bytes(number % 251 for number in range(20_000))
    spool = filled(data, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert spool.read(4000, 5000) == (4000, data[4000:5000])
    start, end = spool.read(6000, 10_000)
    assert start >= 16_000
    assert end == data[start:]
    assert spool.read(-5, 100) == (19_995, data[-5:])
    assert spool.read(10**9, 5) == (20_000, b"")
    spool.close()


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 100), max_size=6), st.integers(0, 300))
def test_shares_do_not_exceed_the_budget_and_waste_nothing(wanted: dict[str, int], most: int) -> None:
    given_out = budget.shares(wanted, most)
    assert sum(given_out.values()) <= most
    if sum(wanted.values()) <= most:
        assert given_out == wanted


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.text(max_size=5000), max_size=200), max_size=3))
def test_records_are_cut_to_size(value: dict[str, list[str]]) -> None:
    import json

    assert len(json.dumps(budget.bounded(value), ensure_ascii=False)) <= budget.RECORD_CHARS_MOST
