"""Two joined programs: every byte passes, every end is noticed, nothing outlives the call."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_mcp.environments.pipeline import Piped, pipe
from pyro_mcp.errors import ProgramFailed, ProgramMissing
from pyro_mcp.host.deadline import Deadline

SOON = 30.0
Join = Callable[..., Piped]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def counts() -> list[int]:
    return []


@pytest.fixture
def join(tmp_path: Path, lines: list[str], counts: list[int]) -> Join:
    """``sh -c producer | sh -c consumer``, with ``$OUT`` for a file."""

    def run(producer: str, consumer: str, *, stdin: bytes = b"", seconds: float = SOON) -> Piped:
        (tmp_path / "stdin").write_bytes(stdin)
        with (tmp_path / "stdin").open("rb") as stream:
            return pipe(
                ["sh", "-c", producer],
                ["sh", "-c", consumer],
                Deadline.after(seconds),
                env={"OUT": str(tmp_path / "out")},
                stdin=stream,
                on_line=lines.append,
                on_bytes=counts.append,
            )

    return run


def test_every_byte_passes_and_is_counted(join: Join, counts: list[int], tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    piped = join("cat", 'sha256sum > "$OUT"', stdin=data)
    assert (tmp_path / "out").read_text().split()[0] == hashlib.sha256(data).hexdigest()
    assert piped.moved_bytes == len(data) == counts[-1]
    assert counts == sorted(counts)
    assert piped.producer is not None
    assert (piped.producer.status, piped.consumer.status) == (0, 0)


def test_a_slow_consumer_gets_everything(join: Join, tmp_path: Path) -> None:
    # It takes nothing until the producer has filled the pipe and said so through a second file.
    producer = 'head -c 65536 /dev/zero; : > "$OUT.full"; head -c 1000000 /dev/zero'
    consumer = 'until test -e "$OUT.full"; do :; done; wc -c > "$OUT"'
    assert join(producer, consumer).moved_bytes == 1_065_536
    assert (tmp_path / "out").read_text().strip() == "1065536"


def test_the_lines_of_the_producer_are_handed_on(join: Join, lines: list[str]) -> None:
    piped = join("printf 'one\\ntw' >&2; printf 'o\\n\\377\\n' >&2", "cat")
    assert lines == ["one", "two", "\N{REPLACEMENT CHARACTER}"]
    assert piped.producer is not None
    assert piped.producer.log == b"one\ntwo\n\xff\n"


def test_much_talk_is_kept_to_its_end(join: Join) -> None:
    piped = join("seq 100000 >&2", "cat; seq 100000 >&2")
    assert piped.producer is not None
    for ended in (piped.producer, piped.consumer):
        assert len(ended.log) == 64 << 10
        assert ended.log.endswith(b"100000\n")


def test_a_consumer_that_has_enough_lets_the_producer_finish(join: Join) -> None:
    # As sqfstar does: it ends at the archive's end mark, before the padding.
    piped = join("head -c 10000000 /dev/zero; echo done >&2; exit 0", "head -c 10 >/dev/null")
    assert piped.producer is not None
    assert (piped.producer.status, piped.producer.log, piped.consumer.status) == (0, b"done\n", 0)


def test_a_consumer_that_fails_stops_the_producer_at_once(join: Join) -> None:
    piped = join("exec sleep 1000", "echo full >&2; exit 3")
    assert piped.producer is None
    assert (piped.consumer.status, piped.consumer.log) == (3, b"full\n")


def test_a_consumer_that_fails_in_the_middle_stops_the_producer(join: Join) -> None:
    piped = join("exec cat /dev/zero", "head -c 100000 >/dev/null; exit 4")
    assert (piped.producer, piped.consumer.status) == (None, 4)


def test_the_status_of_a_failed_producer_is_told(join: Join) -> None:
    piped = join("head -c 5 /dev/zero; echo broken >&2; exit 7", "cat")
    assert piped.producer is not None
    assert (piped.producer.status, piped.producer.log, piped.consumer.status) == (7, b"broken\n", 0)


def test_a_killed_program_has_a_negative_status(join: Join) -> None:
    piped = join("kill -9 $$", "cat; kill -25 $$")
    assert piped.producer is not None
    assert (piped.producer.status, piped.consumer.status) == (-9, -25)


def test_the_deadline_ends_both(join: Join) -> None:
    with pytest.raises(ProgramFailed, match="took too long") as caught:
        join("echo working >&2; exec sleep 1000", "cat", seconds=1.0)
    assert caught.value.details == ("working",)


def test_a_missing_program_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match="no-such-packer"), Path("/dev/null").open("rb") as nothing:
        pipe(
            ["sh", "-c", f"touch {tmp_path}/started"],
            ["no-such-packer"],
            Deadline.after(SOON),
            env={},
            stdin=nothing,
            on_line=print,
            on_bytes=print,
        )
    assert list(tmp_path.iterdir()) == []
