"""Check the wheel of ``make dist``: what must be inside is, every digest it names is right, the metadata is ours."""

import argparse
import hashlib
import json
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUNDLE = "pyro_mcp/runtime_bundle"
PLATFORM = f"{BUNDLE}/linux-x86_64"
WANTED = (
    "pyro_mcp/_bin/pyro-agent",
    "pyro_mcp/py.typed",
    f"{BUNDLE}/NOTICE",
    f"{BUNDLE}/sbom.cdx.json",
    f"{BUNDLE}/licenses/Apache-2.0.txt",
    f"{BUNDLE}/licenses/GPL-2.0.txt",
    f"{BUNDLE}/licenses/BSD-3-Clause-crosvm.txt",
)
METADATA = ("METADATA", "licenses/LICENSE", "licenses/NOTICE", "sboms/sbom.cdx.json", "entry_points.txt")


def problems(wheel: zipfile.ZipFile, project: dict[str, Any]) -> Iterator[str]:
    """What is wrong with *wheel*, a line each."""
    names = set(wheel.namelist())
    information = f"pyro_mcp-{project['version']}.dist-info"
    for name in (*WANTED, *(f"{information}/{name}" for name in METADATA)):
        if name not in names:
            yield f"{name} is missing"
    for name in sorted(names):
        if not name.startswith(("pyro_mcp/", f"{information}/")) or name.endswith((".pyc", ".go")):
            yield f"{name} does not belong there"
    for name in ("pyro_mcp/_bin/pyro-agent", f"{PLATFORM}/bin/firecracker", f"{PLATFORM}/bin/jailer"):
        if not wheel.getinfo(name).external_attr >> 16 & 0o111:
            yield f"{name} is not executable"
    yield from _digests(wheel)
    metadata = Parser().parsestr(wheel.read(f"{information}/METADATA").decode())
    for key, value in (("Version", project["version"]), ("Requires-Python", project["requires-python"])):
        if metadata[key] != value:
            yield f"{key} is {metadata[key]}, not {value}"
    if sorted(metadata.get_all("Requires-Dist", [])) == []:
        yield "no dependencies are named"


def _digests(wheel: zipfile.ZipFile) -> Iterator[str]:
    """Which files differ from what the manifest or the SBOM says of them."""
    manifest = json.loads(wheel.read(f"{PLATFORM}/manifest.json"))
    said = {f"{PLATFORM}/{row['path']}": row["sha256"] for row in manifest["binaries"].values()}
    said |= {f"{PLATFORM}/{row['path']}": row["sha256"] for row in manifest["guest"]["parts"].values()}
    said["pyro_mcp/_bin/pyro-agent"] = manifest["guest"]["inputs"]["agent"]
    components = json.loads(wheel.read(f"{BUNDLE}/sbom.cdx.json"))["components"]
    listed = {row["content"] for component in components for row in component.get("hashes", [])}
    for name, digest in said.items():
        if hashlib.sha256(wheel.read(name)).hexdigest() != digest:
            yield f"{name} differs from its digest in the manifest"
        if digest not in listed:
            yield f"{name} is not in the SBOM"


def main() -> int:
    """Check; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    path: Path = parser.parse_args().wheel
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(path) as wheel:
        found = list(problems(wheel, project))
    sys.stdout.write("".join(f"{path.name}: {line}\n" for line in found) or f"{path.name}: as it should be\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
