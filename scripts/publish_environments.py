"""Publish environments of the catalog to a registry, exporting the OCI layout of each to build/oci_layouts if missing.

Credentials: OCI_REGISTRY_USERNAME and _PASSWORD, for Docker Hub also DOCKERHUB_USERNAME and _TOKEN, or docker's login.
Publishing again sends what is missing.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.config import load
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.errors import EXIT_FAILURE, PyroError
from pyro_mcp.sdk import Pyro

LAYOUTS = Path(__file__).parents[1] / "build" / "oci_layouts"


def usual_registry(environ: Mapping[str, str]) -> str:
    """Where `pyro env pull` looks for ours, else the publisher's own place at the registry of the catalog; or empty."""
    own = load(environ).environment_registry
    user = environ.get("OCI_REGISTRY_USERNAME") or environ.get("DOCKERHUB_USERNAME")
    return own or (f"{CATALOG[0].oci.registry}/{user}" if user else "")


def publish(pyro: Pyro, name: str, registry: str, layouts: Path) -> None:
    """Export *name* unless that was done, and publish it below *registry*."""
    layout = layouts / re.sub(r"[:/]", "_", name)
    if not layout.exists():
        layouts.mkdir(parents=True, exist_ok=True)
        pyro.pull_environment(name)
        pyro.export_environment(name, layout)
    done = pyro.publish_environment(layout, f"{registry.rstrip('/')}/{name}")
    sys.stdout.write(f"{done['reference']} {done['digest']} sent {done['sent_blobs']} blobs\n")


def main() -> int:
    """Parse, publish, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("environments", metavar="ENVIRONMENT", nargs="*", help="default: all of the catalog")
    parser.add_argument(
        "--registry",
        help="host and path, for instance ghcr.io/owner; default: PYRO_ENVIRONMENT_REGISTRY, or docker.io/USER",
    )
    parser.add_argument("--layouts", type=Path, default=LAYOUTS, help="default: build/oci_layouts")
    options = parser.parse_args()
    try:
        registry = options.registry or usual_registry(os.environ)
        if not registry:
            parser.error(
                "name the registry (REGISTRY=ghcr.io/owner), or who you are at Docker Hub (DOCKERHUB_USERNAME)"
            )
        pyro = Pyro(progress=TaggedProgress("publish"))
        official = [record["name"] for record in pyro.list_environments() if record["default_packages"]]
        for name in options.environments or official:
            publish(pyro, name, registry, options.layouts)
    except PyroError as error:
        sys.stderr.write("".join(f"{line}\n" for line in [*error.details, f"[error] {error.cause}", error.remedy]))
        return EXIT_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
