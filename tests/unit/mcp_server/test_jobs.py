"""The table of a server's calls: what it keeps of those that have ended, and that a key runs once all the same."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from pyro_mcp.errors import HostFault, InvalidRequest, UnknownJob
from pyro_mcp.mcp_server import jobs
from pyro_mcp.mcp_server.jobs import KEPT_BYTES, KEPT_MOST, Job, JobTable
from pyro_mcp.mcp_server.spool import HEAD_MOST, TAIL_MOST, Spool

MIB = 1 << 20
Work = Callable[[Job], Mapping[str, Any]]


def with_table(session: Callable[[JobTable], Awaitable[None]], directory: Path | None = None) -> None:
    async def work() -> None:
        async with anyio.create_task_group() as group:
            table = JobTable(group, directory)
            await session(table)
            table.close()

    anyio.run(work)


async def done(table: JobTable, work: Work, key: str | None = None, **more: Any) -> Job:  # noqa: ANN401 - as begin
    job = table.begin("vm_run", work, key=key, **more)
    await job.finished.wait()
    return job


def nothing(_job: Job) -> Mapping[str, Any]:
    return {}


def counted(runs: list[str]) -> Work:
    def work(job: Job) -> Mapping[str, Any]:
        job.on_started()
        runs.append(job.id)
        return {}

    return work


def test_a_key_runs_once_though_its_result_is_no_longer_kept() -> None:
    async def session(table: JobTable) -> None:
        runs: list[str] = []
        first = await done(table, counted(runs), "key", request={"command": "x"})
        for _ in range(KEPT_MOST):
            await done(table, nothing)
        assert table.find(first.id) is None
        for _ in range(2):
            with pytest.raises(UnknownJob, match=f"'key' .* {first.id}.* no longer kept") as refused:
                table.begin("vm_run", counted(runs), key="key", request={"command": "x"})
            assert "new key" in refused.value.remedy
        with pytest.raises(InvalidRequest, match="another call"):
            table.begin("vm_run", counted(runs), key="key", request={"command": "y"})
        assert runs == [first.id]

    with_table(session)


def test_what_is_no_longer_kept_of_a_task_is_looked_up_there() -> None:
    async def session(table: JobTable) -> None:
        await done(table, counted([]), "key", task_id="work")
        for _ in range(KEPT_MOST):
            await done(table, nothing)
        with pytest.raises(UnknownJob) as refused:
            table.begin("vm_run", nothing, key="key")
        assert "task_logs" in refused.value.remedy
        assert "work" in refused.value.remedy

    with_table(session)


def test_a_call_that_came_to_nothing_may_be_made_again_also_when_it_is_forgotten() -> None:
    def failing(_job: Job) -> Mapping[str, Any]:
        raise HostFault("no")

    async def session(table: JobTable) -> None:
        for others in (0, KEPT_MOST):
            runs: list[str] = []
            key = f"key {others}"
            assert (await done(table, failing, key)).state == "failed"
            for _ in range(others):
                await done(table, nothing)
            assert (await done(table, counted(runs), key)).state == "completed"
            assert len(runs) == 1

    with_table(session)


def test_the_oldest_keys_are_forgotten_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEYS_MOST", KEPT_MOST + 2)

    async def session(table: JobTable) -> None:
        runs: list[str] = []
        for number in range(KEPT_MOST + 3):
            await done(table, counted(runs), f"{number}")
        assert (await done(table, counted(runs), "0")).id == runs[-1]
        assert len(runs) == KEPT_MOST + 4
        for number in range(2, 4):
            with pytest.raises(UnknownJob):
                table.begin("vm_run", counted(runs), key=f"{number}")

    with_table(session)


def test_output_that_is_not_kept_takes_no_room_from_what_is(tmp_path: Path) -> None:
    def loud(job: Job) -> Mapping[str, Any]:
        job.on_started()
        for _ in range(KEPT_BYTES // MIB + 44):
            job.on_stdout(bytes(MIB))
        return {}

    async def session(table: JobTable) -> None:
        first = await done(table, loud, "key")
        for _ in range(3):
            await done(table, nothing)
        assert table.find(first.id) is first
        assert table.begin("vm_run", loud, key="key") is first

    with_table(session, tmp_path)


def test_output_that_is_kept_is_bounded_over_all_calls(tmp_path: Path) -> None:
    def full(job: Job) -> Mapping[str, Any]:
        for stream in job.spools.values():
            stream.add(bytes(HEAD_MOST))
        return {}

    async def session(table: JobTable) -> None:
        made = [await done(table, full) for _ in range(KEPT_BYTES // HEAD_MOST // 2 + 3)]
        await done(table, nothing)
        kept = [job for job in made if table.find(job.id)]
        assert 0 < sum(spool.held for job in kept for spool in job.spools.values()) <= KEPT_BYTES
        assert kept == made[-len(kept) :]
        assert len(kept) < len(made)

    with_table(session, tmp_path)


def test_a_spool_holds_its_head_and_its_tail() -> None:
    spool = Spool()
    assert spool.held == 0
    spool.add(b"abc")
    assert spool.held == len(b"abc") * 2
    for _ in range(20):
        spool.add(bytes(MIB))
    assert HEAD_MOST + TAIL_MOST <= spool.held <= HEAD_MOST + 2 * TAIL_MOST
