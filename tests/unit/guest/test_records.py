"""The records of file transfers: golden bytes, and a parser that nothing can break."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest.sync.records import PATH_MOST, Kind, Record, data_head, pack, unpack, valid_name, valid_target

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden" / "records.json").read_text())
RENAMED = {"mtime": "mtime_ns"}


def golden(row: dict[str, Any]) -> Record:
    fields: dict[str, Any] = {}
    for name, value in row["fields"].items():
        plain = name.removesuffix("_hex")
        fields[RENAMED.get(plain, plain)] = value if plain == name else bytes.fromhex(value)
    fields["kind"] = Kind(fields["kind"])
    if "data" in fields:
        fields["data"] = memoryview(fields["data"])
    return Record(**fields)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in GOLDEN["records"]])
def test_a_record_has_its_golden_bytes(row: dict[str, Any]) -> None:
    record, data = golden(row), bytes.fromhex(row["hex"])
    assert list(unpack(memoryview(data + data))) == [record, record]
    packed = data_head(len(record.data)) + bytes(record.data) if record.kind is Kind.DATA else pack(record)
    assert packed == data


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in GOLDEN["invalid"] if row["hex"]])
def test_a_golden_invalid_record_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(GuestProtocol):
        list(unpack(memoryview(bytes.fromhex(row["hex"]))))


@given(st.binary(max_size=400), st.integers(0, len(GOLDEN["records"]) - 1), st.integers(0, 60), st.integers(0, 255))
def test_any_bytes_are_records_or_refused(tail: bytes, row: int, place: int, value: int) -> None:
    data = bytearray(bytes.fromhex(GOLDEN["records"][row]["hex"]) + tail)
    data[place % len(data)] = value
    try:
        for record in unpack(memoryview(bytes(data))):
            named = record.kind not in (Kind.DATA, Kind.HOLE)
            assert not named or valid_name(record.name)
            assert record.kind is not Kind.LINK or valid_name(record.target)
            assert record.kind is not Kind.SYMLINK or valid_target(record.target)
            assert len(record.name) <= 255
            assert len(record.target) <= PATH_MOST
    except GuestProtocol:
        pass
