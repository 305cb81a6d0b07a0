"""The structured results of the tools, as schemas: the SDK's own objects, and what a running call is answered with."""

from typing import Any, Literal, NotRequired, get_type_hints

from typing_extensions import TypedDict

from pyro_mcp import model
from pyro_mcp.engine.tasks import results
from pyro_mcp.sdk.tasks import PushedSync, TaskJob

Status = Literal["completed", "running", "failed", "cancelled"]


def readable(hint: Any) -> Any:  # noqa: ANN401 - any type
    """*hint* with every TypedDict in it made anew: pydantic reads those of ``typing`` only from Python 3.12 on."""
    if hasattr(hint, "__total__") and hasattr(hint, "__required_keys__"):
        required = hint.__required_keys__
        return _typed(
            hint.__name__,
            {
                name: readable(item) if name in required else NotRequired[readable(item)]
                for name, item in get_type_hints(hint).items()
            },
        )
    arguments = getattr(hint, "__args__", None)
    if arguments and getattr(hint, "__origin__", None) in (list, dict):
        return hint.__origin__[tuple(readable(item) for item in arguments)]
    if arguments and type(None) in arguments:
        union = readable(arguments[0])
        for item in arguments[1:]:
            union = union | readable(item)
        return union
    return hint


def call_of(name: str, *parts: Any) -> Any:  # noqa: ANN401 - TypedDict classes
    """A result of a call that may outlast its request: *status* says whether the keys of *parts* are there."""
    fields: dict[str, Any] = {
        "status": Status,
        "job_id": str,
        "elapsed_seconds": NotRequired[float],
        "progress": NotRequired[str],
        "next_step": NotRequired[str],
        "stdout": NotRequired[str],
        "stderr": NotRequired[str],
    }
    for part in parts:
        fields |= {key: NotRequired[readable(hint)] for key, hint in get_type_hints(part).items() if key != "job_id"}
    return _typed(name, fields)


def _typed(name: str, fields: dict[str, Any]) -> Any:  # noqa: ANN401 - a class made at run time
    make: Any = TypedDict
    return make(name, fields)


class JobOutput(TypedDict):
    """A piece of what a command wrote. Cursors are byte offsets; *at_end*: nothing more is known now."""

    job_id: str
    status: Status
    stream: Literal["stdout", "stderr"]
    cursor: int
    next_cursor: int
    total_bytes: int
    skipped_bytes: int
    at_end: bool
    text: str


class JobEnd(TypedDict):
    """What most jobs have when they are completed."""

    exit_code: int
    timed_out: bool
    duration_ms: int


class JobCancelled(TypedDict):
    """The answer to a cancellation."""

    job_id: str
    status: Status
    exit_code: NotRequired[int]


RUN = call_of("VmRunResult", model.RunResult)
VM = call_of("VmCallResult", model.VmRecord)
TASK = call_of("TaskCallResult", results.TaskRecordResult)
TASK_EXEC = call_of("TaskExecCallResult", results.TaskExecResult)
TASK_SYNC = call_of("TaskSyncCallResult", PushedSync)
JOB_STARTED = call_of("JobStartResult", TaskJob)
JOB_RESULT = call_of("JobWaitResult", JobEnd)  # and the keys of whatever the job was
NETWORK_INFO = readable(model.NetworkInfo)
JOB_OUTPUT = JobOutput
JOB_CANCELLED = JobCancelled
VM_RECORD = readable(model.VmRecord)
VM_DELETED = readable(model.DeletedVm)
VMS_REAPED = readable(model.ReapedVms)
_ENVIRONMENT: Any = readable(model.EnvironmentRecord)
ENVIRONMENTS = _typed("EnvironmentListResult", {"result": list[_ENVIRONMENT]})
TASK_RECORD = readable(results.TaskRecordResult)
TASK_LIST = readable(results.TaskList)
TASK_LOGS = readable(results.TaskLogs)
TASK_PORT = readable(results.TaskPort)
TASK_PORTS = readable(results.TaskPorts)
TASK_DELETED = readable(results.DeletedTask)
