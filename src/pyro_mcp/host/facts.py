"""What was measured about this host, remembered for its present boot in ``paths.host_facts``."""

from typing import Any

from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import private_directory, read_json, write_json
from pyro_mcp.host.processes import boot_id
from pyro_mcp.paths import Paths


def recall(paths: Paths, name: str) -> dict[str, Any] | None:
    """The fact *name* of this boot; ``None`` when it is not known, or not to be read."""
    try:
        facts = read_json(paths.host_facts)
        known = facts is not None and facts.get("boot_id") == boot_id()
    except (PyroError, OSError):
        return None
    value = facts.get(name) if facts and known else None
    return value if isinstance(value, dict) else None


def remember(paths: Paths, name: str, value: dict[str, Any]) -> None:
    """Keep the fact *name* for this boot. One that cannot be kept is measured again."""
    try:
        boot = boot_id()
        private_directory(paths.state)
        facts = read_json(paths.host_facts) or {}
        if facts.get("boot_id") != boot:
            facts = {"boot_id": boot}
        write_json(paths.host_facts, {**facts, name: value})
    except (PyroError, OSError):
        return
