"""Failures as a model reads them: what helps is a tool it has."""

import pytest

from pyro_mcp.errors import InvalidRequest, ProgramMissing, PyroError, UnknownEnvironment, UnknownJob, UnknownTask
from pyro_mcp.mcp_server.failures import TOOL_OF, words
from pyro_mcp.mcp_server.profiles import TOOLS

from ...command_lines import found  # noqa: TID252 - the tests are no installed package


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (UnknownTask("x"), "Call `task_list` to see the tasks; "),
        (UnknownJob("x"), "Call `task_logs` to see its jobs."),
        (UnknownEnvironment("x"), "Call `vm_list_environments` to see the environments; "),
        (InvalidRequest("x", remedy="Choose another name, or delete it: pyro task delete work"), "`task_delete`"),
        (ProgramMissing("x", remedy="Run `pyro setup`."), "Run `pyro setup`."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PyroError) else value[:20],
)
def test_a_remedy_names_the_tool_and_not_the_command(error: PyroError, remedy: str) -> None:
    text = words(error)
    assert remedy in text
    assert ("pyro" in text) == ("pyro" in remedy)


@pytest.mark.parametrize("verb", TOOL_OF)
def test_a_command_that_is_replaced_is_one_and_so_is_its_tool(verb: str) -> None:
    assert found(verb.split())[0] == verb
    assert TOOL_OF[verb] in TOOLS["full"]
