"""Inside the lab: unpack pyro's cache for its users, so that pyro takes it for installed.

``python3 -m pyro_mcp.testing.lab.inside USER...``, as root.
"""

import json
import os
import pwd
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from pyro_mcp.host.files import read_json, write_json
from pyro_mcp.paths import APPLICATION, Paths
from pyro_mcp.runtime.agent import AGENT, agent_identity
from pyro_mcp.runtime.manifest import INDEX, MANIFEST, PARTS, Identity
from pyro_mcp.testing.lab import SUPPLIES
from pyro_mcp.testing.lab.supplies import CACHE, MTIMES


def settle(supplies: Path, paths: Paths, agent: Path = AGENT) -> None:
    """Copy the cache of *supplies* to *paths*, with its times and with what its records say of inodes.

    What is there with its time is left alone.
    """
    paths.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, mtime_ns in json.loads((supplies / MTIMES).read_text()).items():
        source, target = supplies / CACHE / name, paths.cache / name
        if not target.exists() or target.stat().st_mtime_ns != mtime_ns:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(source.stat().st_mode & 0o777)
            os.utime(target, ns=(mtime_ns, mtime_ns))
    _adopt_runtime(paths, agent)


def _adopt_runtime(paths: Paths, agent: Path) -> None:
    """The runtime's parts and the agent are the same bytes in other inodes: say so in the records."""
    index = read_json(paths.runtimes / INDEX)
    manifest = paths.runtimes / str((index or {}).get("digest")) / MANIFEST
    record = read_json(manifest)
    if index is None or record is None:
        raise ValueError("the supplies hold no runtime")
    index["agent"] = {"path": str(agent), **asdict(agent_identity(agent))}
    for part in PARTS:
        record["parts"][part] |= asdict(Identity.of((manifest.parent / part).stat()))
    write_json(manifest, record)
    write_json(paths.runtimes / INDEX, index)


def main(names: list[str]) -> None:
    """Settle for each user, and give them their files."""
    for name in names:
        person = pwd.getpwnam(name)
        home = Path(person.pw_dir)
        cache = home / ".cache" / APPLICATION
        settle(SUPPLIES, Paths(home / ".local" / "state" / APPLICATION, cache, cache / "environments"))
        for path in (cache.parent, *cache.parent.rglob("*")):
            os.chown(path, person.pw_uid, person.pw_gid, follow_symlinks=False)


if __name__ == "__main__":
    main(sys.argv[1:])
