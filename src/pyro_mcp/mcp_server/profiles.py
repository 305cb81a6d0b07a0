"""Which tools a server offers: hosts and models work better with few."""

from typing import Literal, get_args

from pyro_mcp.errors import InvalidRequest

Profile = Literal["vm-run", "tasks", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

_RUNNING_CALLS = ("job_read", "job_wait", "job_cancel")
_TASKS = (
    "task_create",
    "task_sync_push",
    "task_exec",
    "task_status",
    "task_logs",
    "task_list",
    "task_publish",
    "task_unpublish",
    "task_delete",
)
_MACHINES = (
    "vm_create",
    "vm_start",
    "vm_exec",
    "vm_stop",
    "vm_delete",
    "vm_status",
    "vm_network_info",
    "vm_reap_expired",
)
TOOLS: dict[Profile, tuple[str, ...]] = {
    "vm-run": ("vm_run", "vm_list_environments", *_RUNNING_CALLS),
    "tasks": ("vm_list_environments", *_TASKS, "job_start", *_RUNNING_CALLS),
    "full": ("vm_run", "vm_list_environments", *_MACHINES, *_TASKS, "job_start", *_RUNNING_CALLS),
}


def tools_of(profile: str) -> tuple[str, ...]:
    """The names of the tools in *profile*; raises InvalidRequest for an unknown one."""
    for name in PROFILES:
        if name == profile:
            return TOOLS[name]
    raise InvalidRequest(f"profile must be one of {', '.join(PROFILES)}, not {profile!r:.40}")
