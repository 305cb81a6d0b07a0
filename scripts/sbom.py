"""Write the list of what a wheel with the bundle DIRECTORY contains, as CycloneDX JSON, into that directory.

The Python packages are not inside the wheel; they are listed in the versions that were installed here when it was made.
The same input gives the same file: it has no time and no serial number.
"""

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pyro_mcp import __version__
from pyro_mcp.paths import PLATFORM
from pyro_mcp.runtime import bundle
from pyro_mcp.runtime.agent import find_agent
from pyro_mcp.runtime.prebuilt import KEY
from pyro_mcp.runtime.vmm_sources import PROGRAMS

NAME = "sbom.cdx.json"
DISTRIBUTION = "pyro-mcp"
GO_VERSION = re.compile(rb"\xff Go buildinf:.{18}[\x01-\x40]go(\d+(?:\.\d+)+)", re.DOTALL)
KERNEL_LICENCE = "GPL-2.0-only WITH Linux-syscall-note"
LICENCE_NAME_MOST = 60

Component = dict[str, Any]


def component(kind: str, name: str, version: str, *, licence: str, purl: str = "", sha256: str = "") -> Component:
    """A component; *licence* is an SPDX expression."""
    made: Component = {"type": kind, "name": name, "version": version, "licenses": [{"expression": licence}]}
    made["bom-ref"] = purl or f"file:{name}"
    if purl:
        made["purl"] = purl
    if sha256:
        made["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return made


def go_version(agent: Path) -> str:
    """The version of Go that compiled *agent*, from the program itself. Raises ValueError when it does not say so."""
    found = GO_VERSION.search(agent.read_bytes())
    if found is None:
        raise ValueError(f"{agent} does not say which Go compiled it")
    return found[1].decode()


def python_packages() -> Iterator[Component]:
    """All that pyro needs of Python, as it is installed here, by name."""
    seen: dict[str, importlib.metadata.Distribution] = {}
    waiting = [DISTRIBUTION]
    while waiting:
        found = importlib.metadata.distribution(waiting.pop())
        for text in found.requires or []:
            need = Requirement(text)
            name = re.sub(r"[-_.]+", "-", need.name).lower()
            wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", "crypto"))
            if wanted and name not in seen:
                seen[name] = importlib.metadata.distribution(name)
                waiting.append(name)
    for name in sorted(seen):
        yield _python_package(name, seen[name])


def _python_package(name: str, found: importlib.metadata.Distribution) -> Component:
    purl = f"pkg:pypi/{name}@{found.version}"
    made = component("library", name, found.version, licence="", purl=purl)
    said_of_it = found.metadata.json
    expression = said_of_it.get("license_expression")
    classifiers = [row.rpartition(":: ")[2] for row in said_of_it.get("classifier", []) if "License ::" in row]
    text = str(said_of_it.get("license", "")).strip()
    said = text if 0 < len(text) <= LICENCE_NAME_MOST and "\n" not in text else ", ".join(classifiers)
    named = {"license": {"name": said or "see its metadata"}}
    return {**made, "licenses": [{"expression": expression} if expression else named]}


def programs(root: Path) -> Iterator[Component]:
    """What lies inside the wheel: the agent with Go's library, and what the bundle at *root* holds."""
    agent = find_agent()
    version = go_version(agent.path)
    yield component("application", "pyro-agent", __version__, licence="MIT", sha256=agent.sha256)
    yield component("library", "stdlib", version, licence="BSD-3-Clause", purl=f"pkg:golang/stdlib@{version}")
    manifest = bundle.read(root, "bundle").manifest
    for name in PROGRAMS:
        vmm, digest = manifest["component_versions"][name], manifest["binaries"][name]["sha256"]
        purl = f"pkg:github/firecracker-microvm/firecracker@v{vmm}#{name}"
        licence = "Apache-2.0 AND BSD-3-Clause"
        yield component("application", name, vmm, licence=licence, purl=purl, sha256=digest)
    guest = manifest[KEY]
    kernel = guest["kernel"]
    purl = f"pkg:deb/debian/{kernel['package']}@{kernel['version']}?arch=amd64"
    yield component(
        "operating-system", kernel["package"], kernel["version"],
        licence=KERNEL_LICENCE, purl=purl, sha256=kernel["sha256"],
    )  # fmt: skip
    for name, part in sorted(guest["parts"].items()):
        licence = KERNEL_LICENCE if name == "vmlinux" else f"{KERNEL_LICENCE} AND MIT AND BSD-3-Clause"
        yield component("file", f"{PLATFORM}/{part['path']}", kernel["version"], licence=licence, sha256=part["sha256"])


def document(root: Path) -> dict[str, Any]:
    """The whole list."""
    subject = component(
        "application", DISTRIBUTION, __version__, licence="MIT", purl=f"pkg:pypi/{DISTRIBUTION}@{__version__}"
    )
    components = [*programs(root), *python_packages()]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": [row["bom-ref"] for row in components]}],
    }


def main() -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    root: Path = parser.parse_args().directory
    made = document(root)
    (root / NAME).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    sys.stderr.write(f"[sbom] {len(made['components'])} components in {root / NAME}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
