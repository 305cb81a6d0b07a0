"""Failures as a model reads them: a code, the cause, what to do. The SDK hides the text of every other exception."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError

from pyro_mcp.errors import InvalidRequest, PyroError
from pyro_mcp.mcp_server.budget import bounded, middle_out

DETAILS_MOST = 12
ERROR_KEY = "pyro_mcp/error"
TEXT_CHARS_MOST = 4000
PROBLEMS_MOST = 5
REMEDY = "Correct the argument; the tool's parameters say what each one takes."

# What the command line calls it: what a client calls it.
TOOL_OF = {
    "env list": "vm_list_environments",
    "task list": "task_list",
    "task logs": "task_logs",
    "task delete": "task_delete",
    "task unpublish": "task_unpublish",
}
_VERBS = "|".join(TOOL_OF)
COMMAND = re.compile(rf"`pyro (?P<quoted>{_VERBS})\b[^`]*`|pyro (?P<last>{_VERBS})\b[^`.]*$")


class Refused(ToolError):
    """A failure whose text is for the model; *error* is what it was."""

    def __init__(self, error: PyroError) -> None:
        super().__init__(words(error))
        self.error = error


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raise pyro's errors so that their text reaches the model."""
    try:
        yield
    except PyroError as error:
        raise Refused(error) from error


def words(error: PyroError) -> str:
    """An error as text."""
    lines = [f"{error.code}: {error.cause}", *(f"  | {line}" for line in error.details[-DETAILS_MOST:]), _remedy(error)]
    return middle_out("\n".join(lines), TEXT_CHARS_MOST)


def as_result(tool: str, error: PyroError, text: str = "") -> CallToolResult:
    """The answer to a call that failed; *text* instead of the error's own.

    The typed form goes into ``_meta``: clients hold structured content against the schema of a success, and hide the
    whole answer when it does not fit.
    """
    value = bounded({**error.as_dict(), "remedy": _remedy(error), "details": list(error.details[-DETAILS_MOST:])})
    content = TextContent(type="text", text=f"Error executing tool {tool}: {text or words(error)}")
    return CallToolResult(content=[content], is_error=True, _meta={ERROR_KEY: value})


def of_validation(error: ValidationError, known: Iterable[str]) -> InvalidRequest:
    """What is wrong with the arguments, without the arguments themselves: they may be long."""
    problems = [_problem(item, list(known)) for item in error.errors(include_url=False, include_input=False)]
    more = f" (and {len(problems) - PROBLEMS_MOST} more)" if len(problems) > PROBLEMS_MOST else ""
    return InvalidRequest("; ".join(problems[:PROBLEMS_MOST]) + more, remedy=REMEDY)


def _problem(item: Any, known: list[str]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    name = middle_out(".".join(str(part) for part in item["loc"]), 80)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, n=1)
        return f"there is no parameter {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
    return f"{name}: {item['msg']}"


def _remedy(error: PyroError) -> str:
    """What the model can do: a tool of ours in place of the command that is for people."""
    if error.remedy == InvalidRequest.usual_remedy:
        return REMEDY
    text = COMMAND.sub(lambda found: f"`{TOOL_OF[found['quoted'] or found['last']]}`", error.remedy)
    return text.replace("Run `", "Call `", 1) if text != error.remedy else text
