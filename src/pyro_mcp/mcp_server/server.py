"""``create_server``: pyro as an MCP server. This module loads the MCP SDK."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import ConfigDict, ValidationError

from pyro_mcp import __version__
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.mcp_server import job_tools, task_tools, vm_tools
from pyro_mcp.mcp_server.failures import Refused, as_result, of_validation
from pyro_mcp.mcp_server.places import Places
from pyro_mcp.mcp_server.profiles import Profile, tools_of
from pyro_mcp.mcp_server.service import CALL_SECONDS, Policy, Service, open_service
from pyro_mcp.sdk import Pyro

NAME = "pyro_mcp"
INSTRUCTIONS = """Runs commands in virtual machines of their own, from curated Linux environments (debian:12 has git).
One command: vm_run. Several on the same files: task_create, task_sync_push, task_exec, task_delete; tasks live on.
Nothing of the host is inside but what is pushed in. Exit codes are the command's own; 124 is a timeout.
A call that takes long answers with status=running and a job_id: go on with job_wait."""

CHANGES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
OPEN = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
REPEATABLE = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
# A command may do anything to the files of its machine, and with a network to the world outside.
COMMANDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)
ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

TOOLS: dict[str, tuple[Callable[..., Awaitable[CallToolResult]], str, ToolAnnotations]] = {
    "vm_run": (vm_tools.vm_run, "Run a command in a fresh VM", OPEN),
    "vm_list_environments": (vm_tools.vm_list_environments, "List environments", READS),
    "vm_create": (vm_tools.vm_create, "Create a VM", CHANGES),
    "vm_start": (vm_tools.vm_start, "Start a VM", CHANGES),
    "vm_exec": (vm_tools.vm_exec, "Run a command in a VM and delete it", COMMANDS),
    "vm_stop": (vm_tools.vm_stop, "Stop a VM", CHANGES),
    "vm_delete": (vm_tools.vm_delete, "Delete a VM", ENDS),
    "vm_status": (vm_tools.vm_status, "Show a VM", READS),
    "vm_network_info": (vm_tools.vm_network_info, "Show a VM's network", READS),
    "vm_reap_expired": (vm_tools.vm_reap_expired, "Delete expired VMs", REPEATABLE),
    "task_create": (task_tools.task_create, "Create a task", CHANGES),
    "task_sync_push": (task_tools.task_sync_push, "Push files into a task", ENDS),
    "task_exec": (task_tools.task_exec, "Run a command in a task", COMMANDS),
    "task_status": (task_tools.task_status, "Show a task", READS),
    "task_logs": (task_tools.task_logs, "Show a task's history", READS),
    "task_list": (task_tools.task_list, "List tasks", READS),
    "task_publish": (task_tools.task_publish, "Publish a task's port on the host", CHANGES),
    "task_unpublish": (task_tools.task_unpublish, "Take a task's published ports back", ENDS),
    "task_delete": (task_tools.task_delete, "Delete a task", ENDS),
    "job_start": (job_tools.job_start, "Start a long command", COMMANDS),
    "job_read": (job_tools.job_read, "Read a job's output", READS),
    "job_wait": (job_tools.job_wait, "Wait for a job", READS),
    "job_cancel": (job_tools.job_cancel, "End a job", ENDS),
}


class PyroServer(MCPServer[Service]):
    """An MCP server whose failures have a code, a cause and a remedy, as text and in ``_meta``."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of MCPServer
        super().__init__(NAME, **options)
        self.services: set[Service] = set()

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Service, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """See ``MCPServer``; what was refused is a result here, not an exception."""
        if context is None:  # a direct call: no client, but a life of its own
            raise InvalidRequest("call the tools through a client", remedy="For instance `mcp.Client(server)`.")
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            return as_result(
                _short(name), InvalidRequest(f"there is no tool {name!r:.80}", remedy="tools/list has all.")
            )
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, Refused):
                return as_result(name, cause.error, str(cause))
            if isinstance(cause, ValidationError) and not isinstance(error, UnexpectedToolError):
                return as_result(name, of_validation(cause, tool.fn_metadata.arg_model.model_fields))
            raise


def create_server(
    manager: Pyro | None = None,
    *,
    profile: Profile = "full",
    allow_paths: Iterable[str | Path] = (),
    allow_host_compat: bool = False,
    call_seconds: float = CALL_SECONDS,
    local: bool = True,
    publish_addresses: Iterable[str] = (),
) -> PyroServer:
    """An MCP server over *manager*, a ``Pyro``, ready to ``run``.

    *allow_paths*: host directories whose files may be pushed into guests; none: the working directory and the client's
    roots, and without *local* (the client runs on this host) nothing. *call_seconds*: after so long a call is answered
    with a job's id. *publish_addresses*: where ports of tasks may be published besides on loopback. Raises
    InvalidRequest.
    """
    names = tools_of(profile)
    policy = Policy(Places.of(allow_paths, local=local), allow_host_compat, call_seconds, tuple(publish_addresses))
    own = manager or Pyro()

    @contextlib.asynccontextmanager
    async def life(server: MCPServer[Service]) -> AsyncIterator[Service]:
        async with open_service(own, policy, own.state_directory) as service:
            if isinstance(server, PyroServer):
                server.services.add(service)
            try:
                yield service
            finally:
                if isinstance(server, PyroServer):
                    server.services.discard(service)

    return PyroServer(
        title="pyro",
        instructions=INSTRUCTIONS,
        version=__version__,
        tools=[_tool(name) for name in names],
        lifespan=life,
        log_level="WARNING",
    )


def _tool(name: str) -> Tool:
    function, title, annotations = TOOLS[name]
    description = " ".join((function.__doc__ or "").split())
    tool = Tool.from_function(function, name, title, description, annotations=annotations, structured_output=True)
    strict: Any = type(  # a parameter that does not exist is an error, not something to overlook
        tool.fn_metadata.arg_model.__name__,
        (tool.fn_metadata.arg_model,),
        {"model_config": ConfigDict(extra="forbid"), "__module__": __name__},
    )
    tool.fn_metadata.arg_model = strict
    tool.parameters = _compact(strict.model_json_schema(by_alias=True))
    tool.fn_metadata.output_schema = _compact(tool.fn_metadata.output_schema)
    return tool


def _compact(schema: Any) -> Any:  # noqa: ANN401 - JSON schema
    """A schema without the titles pydantic makes of the names."""
    if isinstance(schema, dict):
        return {
            key: {name: _compact(item) for name, item in value.items()}
            if key in ("properties", "$defs")
            else _compact(value)
            for key, value in schema.items()
            if key != "title"
        }
    if isinstance(schema, list):
        return [_compact(item) for item in schema]
    return schema


def _short(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])
