"""Call every tool of a pyro server with the MCP Inspector, a client nobody here wrote; for `make inspector`.

The Inspector is installed with npm below build/ once. One server over HTTP serves all calls, and over stdio each call
that lists the tools starts its own.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "inspector"
PROGRAM = PLACE / "node_modules" / ".bin" / "mcp-inspector"
PACKAGE = "@modelcontextprotocol/inspector@2.12.0"
TOKEN = "a-token-for-the-inspector"  # noqa: S105 - of a server that lives for these calls
PYRO = [sys.executable, "-m", "pyro_mcp"]
CALL_SECONDS = 240


def install() -> None:
    """Have the Inspector below build/."""
    if not PROGRAM.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--prefix", str(PLACE), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        subprocess.run(argv, check=True, timeout=600, cwd=PLACE)


@contextmanager
def server(state: Path, project: Path) -> Iterator[list[str]]:
    """A server over HTTP; what the Inspector needs to reach it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "XDG_STATE_HOME": str(state), "PYRO_MCP_TOKEN": TOKEN}
    argv = [*PYRO, "mcp", "serve", "--http", f"127.0.0.1:{port}", "--allow-path", str(project)]
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            if not until(listens, Deadline.after(30)):
                raise SystemExit("the server does not listen")
            yield [
                f"http://127.0.0.1:{port}/mcp",
                "--transport",
                "http",
                "--header",
                f"Authorization: Bearer {TOKEN}",
            ]
        finally:
            process.terminate()
            process.wait(15)


def inspect(*words: str) -> dict[str, Any]:
    """One run of the Inspector: what it prints."""
    argv = [str(PROGRAM), "--cli", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=CALL_SECONDS, check=False, cwd=PLACE)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Session:
    """Calls of one client to one server."""

    def __init__(self, target: list[str]) -> None:
        self._target = target
        self.called: set[str] = set()

    def tools(self) -> set[str]:
        """The names of all tools."""
        return {tool["name"] for tool in inspect(*self._target, "--method", "tools/list")["tools"]}

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """The structured result of a call."""
        words = ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
        found = inspect(*self._target, *words)
        result = found.get("structuredContent")
        if found.get("isError") or not isinstance(result, dict):
            raise SystemExit(f"{tool}: {json.dumps(found)[:2000]}")
        self.called.add(tool)
        sys.stdout.write(f"{tool} ok\n")
        sys.stdout.flush()
        return result


def machines(session: Session) -> None:
    """The vm tools."""
    environment = "debian:12"
    session.call("vm_list_environments")
    done = session.call("vm_run", environment=environment, command="echo out; exit 3")
    if (done["stdout"], done["exit_code"]) != ("out\n", 3):
        raise SystemExit(f"vm_run: {done}")
    vm_id = session.call("vm_create", environment=environment)["vm_id"]
    for tool in ("vm_start", "vm_status", "vm_network_info", "vm_stop", "vm_start"):
        session.call(tool, vm_id=vm_id)
    session.call("vm_exec", vm_id=vm_id, command="true")
    session.call("vm_delete", vm_id=session.call("vm_create", environment=environment)["vm_id"])
    session.call("vm_reap_expired")


def tasks(session: Session, project: Path) -> None:
    """The task and the job tools."""
    task = session.call("task_create", environment="debian:12")["task_id"]
    session.call("task_sync_push", task_id=task, source_path=str(project))
    done = session.call("task_exec", task_id=task, command="cat hello")
    if done["stdout"] != "hello\n":
        raise SystemExit(f"task_exec: {done}")
    job = session.call("job_start", task_id=task, command="echo begun; sleep 1; exit 4")["job_id"]
    session.call("job_read", job_id=job)
    if session.call("job_wait", job_id=job)["exit_code"] != 4:
        raise SystemExit("job_wait")
    session.call("job_cancel", job_id=session.call("job_start", task_id=task, command="sleep 100")["job_id"])
    session.call("task_publish", task_id=task, guest_port=80)
    if len(session.call("task_unpublish", task_id=task)["unpublished_ports"]) != 1:
        raise SystemExit("task_unpublish")
    for tool in ("task_status", "task_logs"):
        session.call(tool, task_id=task)
    session.call("task_list")
    session.call("task_delete", task_id=task)


def main() -> int:
    """List and call everything; 0 when every tool was called and answered."""
    install()
    with tempfile.TemporaryDirectory() as place:
        state, project = Path(place) / "state", Path(place) / "project"
        project.mkdir()
        (project / "hello").write_text("hello\n")
        over_stdio = inspect("-e", f"XDG_STATE_HOME={state}", *PYRO, "mcp", "serve", "--method", "tools/list")
        with server(state, project) as target:
            session = Session(target)
            every = session.tools()
            if every != {tool["name"] for tool in over_stdio["tools"]}:
                raise SystemExit("stdio and HTTP list different tools")
            machines(session)
            tasks(session, project)
    missing = sorted(every - session.called)
    sys.stdout.write(f"{len(session.called)} tools called; not called: {', '.join(missing) or 'none'}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
