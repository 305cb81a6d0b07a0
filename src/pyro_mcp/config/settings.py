"""The table of settings. Help, docs and the reader below are made from it."""

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pyro_mcp.errors import InvalidRequest

DRIVERS = ("auto", "firecracker", "qemu")
ENVIRONMENT_SOURCES = ("oci", "bootstrap")


class Setting(NamedTuple):
    """One row: the field it fills, its variable, how its text is read, its default, its help."""

    field: str
    variable: str
    read: Callable[[str], Any]
    default: Any
    help: str


class Settings(NamedTuple):
    """The values in force. Sizes are MiB, times are seconds."""

    driver: str
    max_active_vms: int
    boot_timeout: float
    min_free_mib: int
    debian_mirror: str
    debug_console: bool
    ca_file: str
    no_templates: bool
    templates_max_mib: int
    environment_sources: tuple[str, ...]
    environment_registry: str
    environments_lock: str
    environments_max_mib: int
    image_max_mib: int
    registry_mirrors: str
    insecure_registries: str
    oci_request_timeout: int
    oci_upload_timeout: int
    oci_upload_chunk_bytes: int


def _driver(text: str) -> str:
    if text not in DRIVERS:
        raise ValueError(f"one of {', '.join(DRIVERS)}")
    return text


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    raise ValueError("1 or 0")


def _between(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _mirror(text: str) -> str:
    if text and not text.startswith(("http://", "https://", "file:///")):
        raise ValueError("an http, https or file URL")
    return text


def _sources(text: str) -> tuple[str, ...]:
    words = tuple(word for word in text.replace(",", " ").split() if word)
    if not words or not set(words) <= set(ENVIRONMENT_SOURCES):
        raise ValueError(f"a list of {', '.join(ENVIRONMENT_SOURCES)}")
    return words


def _text(text: str) -> str:
    return text.strip()


SETTINGS = (
    Setting("driver", "PYRO_DRIVER", _driver, "auto", "Which VMM runs the machines: auto, firecracker or qemu."),
    Setting(
        "max_active_vms",
        "PYRO_MAX_ACTIVE_VMS",
        _between(0, 10_000),
        0,
        "Most machines at once; 0: as many as fit the free memory.",
    ),
    Setting(
        "boot_timeout",
        "PYRO_BOOT_TIMEOUT_SECONDS",
        _between(1, 3600),
        60,
        "How long one attempt to start a guest may take, in seconds; there are two.",
    ),
    Setting(
        "min_free_mib",
        "PYRO_MIN_FREE_MIB",
        _between(0, 1 << 30),
        512,
        "Disk space that must be free before a machine is made, in MiB.",
    ),
    Setting(
        "debian_mirror",
        "PYRO_DEBIAN_MIRROR",
        _mirror,
        "",
        "Debian archive to use; empty: the sources of this host's apt, if it is a Debian 12.",
    ),
    Setting(
        "debug_console", "PYRO_DEBUG_CONSOLE", _flag, False, "1: the guest's kernel talks on the console (slower)."
    ),
    Setting(
        "ca_file",
        "PYRO_CA_FILE",
        _text,
        "",
        "PEM file of certificate authorities that guests with a network trust besides those of their image.",
    ),
    Setting("no_templates", "PYRO_NO_TEMPLATES", _flag, False, "1: every machine boots; none goes on from a template."),
    Setting(
        "templates_max_mib",
        "PYRO_TEMPLATES_MAX_MIB",
        _between(0, 1 << 30),
        4096,
        "Disk space templates may take, in MiB; those not used for longest are removed.",
    ),
    Setting(
        "environment_sources",
        "PYRO_ENVIRONMENT_SOURCES",
        _sources,
        ENVIRONMENT_SOURCES,
        "Where environments of the catalog come from, in order: oci (a registry), bootstrap (the Debian archive).",
    ),
    Setting(
        "environment_registry",
        "PYRO_ENVIRONMENT_REGISTRY",
        _text,
        "",
        "Registry and path that has the catalog's environments as `pyro env publish` makes them;"
        " empty: official images of Docker Hub.",
    ),
    Setting(
        "environments_lock",
        "PYRO_ENVIRONMENTS_LOCK",
        _text,
        "",
        "File that says which digest each tag is pinned to; empty: environments.lock in the state directory.",
    ),
    Setting(
        "environments_max_mib",
        "PYRO_ENVIRONMENTS_MAX_MIB",
        _between(0, 1 << 30),
        20480,
        "Disk space environments may take, in MiB; those not used for longest are removed, imported ones never.",
    ),
    Setting(
        "image_max_mib",
        "PYRO_IMAGE_MAX_MIB",
        _between(1, 1 << 30),
        16384,
        "What one image may unpack to, in MiB; a larger one is refused.",
    ),
    Setting(
        "registry_mirrors",
        "PYRO_REGISTRY_MIRRORS",
        _text,
        "",
        "Mirrors that are asked first, as REGISTRY=HOST[/PATH], parted by commas.",
    ),
    Setting(
        "insecure_registries",
        "PYRO_INSECURE_REGISTRIES",
        _text,
        "",
        "Registries that may be talked to without TLS, parted by commas; those on this host may always.",
    ),
    Setting(
        "oci_request_timeout",
        "PYRO_OCI_REQUEST_TIMEOUT_SECONDS",
        _between(1, 86400),
        90,
        "How long a registry may be silent, in seconds; while an image is pulled at most 30.",
    ),
    Setting(
        "oci_upload_timeout",
        "PYRO_OCI_UPLOAD_TIMEOUT_SECONDS",
        _between(1, 86400),
        900,
        "How long a registry may take to take in one piece of an upload, in seconds.",
    ),
    Setting(
        "oci_upload_chunk_bytes",
        "PYRO_OCI_UPLOAD_CHUNK_SIZE_BYTES",
        _between(1, 1 << 30),
        8388608,
        "Size of the pieces of an upload.",
    ),
)

# Variables that other layers read, known so that nobody is told they are misspelt.
ELSEWHERE = (
    "PYRO_ENVIRONMENT_CACHE_DIR",
    "PYRO_RUNTIME_BUNDLE_DIR",
    "PYRO_VM_ENABLE_NETWORK",
    "PYRO_GO",
    "PYRO_MCP_TOKEN",
)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from the environment variables; raises InvalidRequest naming the variable and what it takes."""
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for row in SETTINGS:
        text = source.get(row.variable)
        try:
            values[row.field] = row.default if text is None else row.read(text)
        except ValueError as error:
            raise InvalidRequest(
                f"{row.variable}={text!r} is not valid: it takes {error}",
                remedy=f"Correct or unset {row.variable}. {row.help}",
            ) from error
    return Settings(**values)


def shown(environ: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Every setting as JSON: its value, its *source* ``default`` or ``environment``, its *problem* or ``None``."""
    source = os.environ if environ is None else environ
    rows: list[dict[str, Any]] = []
    for row in SETTINGS:
        text = source.get(row.variable)
        value, problem = row.default, None
        try:
            value = row.default if text is None else row.read(text)
        except ValueError as error:
            value, problem = text, f"it takes {error}"
        rows.append(
            {
                "name": row.field,
                "variable": row.variable,
                "value": list(value) if isinstance(value, tuple) else value,
                "source": "default" if text is None else "environment",
                "default": list(row.default) if isinstance(row.default, tuple) else row.default,
                "help": row.help,
                "problem": problem,
            }
        )
    return rows


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """A line for each ``PYRO_`` variable nobody reads, with the nearest known name."""
    source = os.environ if environ is None else environ
    known = [row.variable for row in SETTINGS] + list(ELSEWHERE)
    lines = []
    for name in sorted(source):
        if name.startswith("PYRO_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            lines.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    return lines
