"""A model behind OpenAI's Responses API runs commands in microVMs.

Needs the package ``openai`` and its variables OPENAI_API_KEY and, for another server, OPENAI_BASE_URL.
"""

import os

from agent_vm_run import DESCRIPTION, PARAMETERS, vm_run
from openai import OpenAI

PROMPT = "Which version of git is in the virtual machine? Find out with vm_run, and answer in one sentence."
ROUNDS_MOST = 8

client = OpenAI()
model = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
tool = {"type": "function", "name": "vm_run", "description": DESCRIPTION, "parameters": PARAMETERS, "strict": False}
conversation = [{"role": "user", "content": PROMPT}]
for _ in range(ROUNDS_MOST):
    response = client.responses.create(model=model, input=conversation, tools=[tool])
    conversation += response.output
    calls = [item for item in response.output if item.type == "function_call"]
    if not calls:
        print(response.output_text)
        break
    for call in calls:
        print(f"{call.name} {call.arguments}")
        output = vm_run(call.arguments)
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
else:
    raise SystemExit("the model came to no end")
