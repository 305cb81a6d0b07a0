"""Results for the model: a compact text, the structured object, both of bounded size."""

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent

from pyro_mcp.errors import PyroError
from pyro_mcp.mcp_server import budget
from pyro_mcp.mcp_server.budget import OUTPUT_CHARS_DEFAULT, STREAMS
from pyro_mcp.mcp_server.failures import Refused
from pyro_mcp.mcp_server.jobs import Job

HANDLE_OUTPUT_CHARS = 4000
RECORD_CHARS = 14_000  # its text is JSON in JSON, which takes more
PARTIAL_CHARS = 1500
TEXT_KEYS = ("exit_code", "timed_out", "causes", "start_error", "duration_ms", "execution_mode", "sequence")


def record(value: Mapping[str, Any]) -> CallToolResult:
    """A record as it is: its text is its JSON on one line."""
    fitted = budget.bounded(value, RECORD_CHARS)
    return result(json.dumps(fitted, ensure_ascii=False, separators=(",", ":")), fitted)


def result(text: str, value: dict[str, Any]) -> CallToolResult:
    """A text and its structured form."""
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=value)


def of_job(job: Job, output_chars: int = OUTPUT_CHARS_DEFAULT) -> CallToolResult:
    """The answer of a call as it stands: its result, or the id to ask again with. Raises what it ended with."""
    if not job.finished.is_set():
        return _handle(job)
    if job.error is not None:
        raise _failure(job)
    outcome = job.outcome or {}
    if "exit_code" in outcome and "stdout" in outcome:
        return _command(job, outcome, output_chars)
    value: dict[str, Any] = {"status": "completed", "job_id": job.id, **outcome}
    return record(value)


def outputs(job: Job, budget_chars: int) -> tuple[dict[str, str], set[str]]:
    """Both streams of a job within a budget, and the names of those that are cut."""
    wanted = {name: min(job.spools[name].total, budget_chars) * 6 for name in STREAMS}
    given = budget.shares(wanted, budget_chars)
    cut, texts = set(), {}
    for name in STREAMS:
        texts[name], is_cut = budget.shown(job.spools[name], max(given[name], 200), job.id, name)
        if is_cut:
            cut.add(name)
    return texts, cut


def _command(job: Job, outcome: Mapping[str, Any], output_chars: int) -> CallToolResult:
    texts, cut = outputs(job, output_chars)
    if not any(texts.values()):  # nothing came by here: what the result itself kept
        texts = {name: budget.middle_out(outcome[name], output_chars // 2) for name in STREAMS}
    fitted = budget.bounded({key: item for key, item in outcome.items() if key not in STREAMS})
    value: dict[str, Any] = {"status": "completed", "job_id": job.id, **fitted, **texts}
    for name in cut:
        value[f"{name}_truncated"] = True
    told = {key: outcome.get(key) for key in TEXT_KEYS}
    facts = " ".join(f"{key}={_word(item)}" for key, item in told.items() if key == "exit_code" or item)
    return result("\n".join([facts, *_blocks(texts)]), value)


def _handle(job: Job) -> CallToolResult:
    """It goes on: how to come back to it, and what it wrote last."""
    texts, _ = outputs(job, HANDLE_OUTPUT_CHARS)
    step = f"Still running; the work goes on. Call job_wait with job_id={job.id} for its result, job_cancel to end it."
    value: dict[str, Any] = {
        "status": "running",
        "job_id": job.id,
        "elapsed_seconds": round(job.seconds, 1),
        "progress": job.line,
        "next_step": step,
        **texts,
    }
    if job.task_id:
        value["task_id"] = job.task_id
    return result("\n".join([step, f"status=running {job.line}", *_blocks(texts)]), value)


def _failure(job: Job) -> BaseException:
    error = job.error
    if not isinstance(error, PyroError):
        return error or RuntimeError("a job without an end")
    texts, _ = outputs(job, PARTIAL_CHARS)
    partial = [f"{name}: {line}" for name in STREAMS for line in texts[name].splitlines()[-4:]]
    fresh = Refused(error)
    if partial:
        fresh.args = (f"{fresh.args[0]}\nIt wrote until then:\n" + "\n".join(partial),)
    fresh.__cause__ = error
    return fresh


def _blocks(texts: Mapping[str, str]) -> list[str]:
    return [f"{name}:\n{text}" for name, text in texts.items() if text]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
