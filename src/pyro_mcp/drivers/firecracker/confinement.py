"""Which cell this host allows, and what of it is really in force around a VMM that runs."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.firecracker import cgroups
from pyro_mcp.drivers.firecracker.cell import Cell, Kind
from pyro_mcp.drivers.firecracker.plan import OPEN_FILES
from pyro_mcp.drivers.vmm_user import vmm_identity
from pyro_mcp.errors import HostFault
from pyro_mcp.host import facts, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId, namespaces_of_its_own
from pyro_mcp.paths import Paths

FACT = "confinement"
PROBE_SECONDS = 15.0
ANSWER = re.compile(rb"landlock=([0-9]{1,3}) namespaces=(yes|no)\n")
LIMIT = re.compile(r"Max ([a-z ]+?) {2,}\S+ +(\S+)")  # of /proc/PID/limits: its name, the soft one, the hard one
NAMESPACES = {"mnt": "mount", "pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts", "user": "user"}


@dataclass(frozen=True, slots=True)
class HostConfinement:
    """What this host allows this user. *reason*: why there are no user namespaces (empty when there are)."""

    landlock: int
    namespaces: bool
    reason: str

    @property
    def kind(self) -> Kind:
        """The best cell there is."""
        if os.geteuid() == 0:
            return "jailer"
        return "namespaces" if self.namespaces else "landlock"


def probe(paths: Paths, agent: Path) -> HostConfinement:
    """Try it, once per boot and user. Never raises: a host that cannot be asked has nothing to offer."""
    who = [os.geteuid(), str(agent)]
    known = facts.recall(paths, FACT) or {}
    if known.get("who") == who and isinstance(known.get("reason"), str):
        return HostConfinement(int(known["landlock"]), bool(known["namespaces"]), known["reason"])
    try:
        done = proc.run([str(agent), "confine", "probe"], Deadline.after(PROBE_SECONDS), check=False)
    except HostFault as error:
        return HostConfinement(0, False, error.cause)
    found = parse(done.stdout, done.stderr)
    facts.remember(
        paths,
        FACT,
        {"who": who, "landlock": found.landlock, "namespaces": found.namespaces, "reason": found.reason},
    )
    return found


def parse(stdout: bytes, stderr: bytes) -> HostConfinement:
    """What ``pyro-agent confine probe`` says."""
    match = ANSWER.fullmatch(stdout)
    lines = proc.tail(stderr, 1)
    if match is None:
        return HostConfinement(0, False, lines[0] if lines else "the probe gave no answer")
    usable = match[2] == b"yes"
    return HostConfinement(int(match[1]), usable, "" if usable else (lines[0] if lines else "denied"))


def cell_for(host: HostConfinement, launch: Launch) -> Cell:
    """The cell of *launch*, as strong as this host allows."""
    if host.kind != "jailer":
        return Cell(host.kind, landlock=host.landlock > 0)
    found = cgroups.hierarchy()
    cgroups.remove_stale(found, launch.paths.directory.parent)
    return Cell(
        "jailer",
        landlock=host.landlock > 0,
        identity=vmm_identity(launch.machine_id),
        cgroup=cgroups.machine_cgroup(launch, found),
    )


def expected(host: HostConfinement) -> list[str]:
    """What will be in force, for doctor and for a machine that does not run yet."""
    words = ["seccomp", "no_new_privs", "no_capabilities", "resource_limits"]
    if host.kind == "jailer":
        words += ["jailer", "own_uid"]
        found = cgroups.hierarchy()
        if found is not None:
            words.append(f"cgroup_v{found.version}:{'+'.join(found.controllers)}")
    if host.kind != "landlock":
        words += ["own_root"]
        words += [f"{name}_namespace" for name in ("mount", "pid", "network", "ipc", "uts")]
    if host.kind == "namespaces":
        words.append("user_namespace")
    if host.landlock:
        words.append("landlock")
    return sorted(words)


def observed(vmm: ProcessId, host: HostConfinement) -> list[str]:
    """What is in force around the process *vmm*: as /proc shows it (proc(5)), but for two words.

    ``jailer`` and ``landlock`` do not show there. Both were required at the start, where a step that fails ends it, so
    they are said of a process that shows what the same steps left: the jailer's user and root directory, and for
    Landlock that the last step before Firecracker dropped all privileges.
    """
    process = Path("/proc") / str(vmm.pid)
    words = _from_status(process) | _from_limits(process) | _from_namespaces(process) | _from_cgroup(process)
    if host.kind == "jailer" and words >= {"own_uid", "own_root"}:
        words.add("jailer")
    if host.landlock and words >= {"no_new_privs", "no_capabilities"}:
        words.add("landlock")
    return sorted(words) if vmm.alive else []


def _from_limits(process: Path) -> set[str]:
    """The limits that the plan sets (plan.py), as they hold: the hard ones."""
    found = {match[1]: match[2] for line in _lines(process / "limits") if (match := LIMIT.match(line))}
    files, size = found.get("open files", ""), found.get("file size", "")
    bounded = files.isdecimal() and int(files) <= OPEN_FILES and size.isdecimal()
    return {"resource_limits"} if bounded and found.get("core file size") == "0" else set()


def _from_status(process: Path) -> set[str]:
    words = set()
    for line in _lines(process / "status"):
        name, _, value = line.partition(":")
        fields = value.split()
        if name == "Uid" and os.geteuid() == 0 and all(field != "0" for field in fields):
            words.add("own_uid")
        elif name == "NoNewPrivs" and fields == ["1"]:
            words.add("no_new_privs")
        elif name == "Seccomp" and fields == ["2"]:
            words.add("seccomp")
        elif name == "CapBnd":
            words.add("no_capabilities")
    # Any capability in any set, but for the bounding set (a limit, not a capability), takes the word away.
    held = [line for line in _lines(process / "status") if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb"))]
    if any(int(line.split()[1], 16) for line in held):
        words.discard("no_capabilities")
    return words


def _from_namespaces(process: Path) -> set[str]:
    own = namespaces_of_its_own(int(process.name))
    words = {f"{name}_namespace" for file, name in NAMESPACES.items() if file in own}
    if "mount_namespace" in words and not _sees_host(process):
        words.add("own_root")
    return words


def _sees_host(process: Path) -> bool:
    """Whether its root directory is the host's."""
    try:
        theirs, ours = (process / "root").stat(), Path("/").stat()
    except OSError:
        return True
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _from_cgroup(process: Path) -> set[str]:
    found = []
    for line in _lines(process / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if f"/{cgroups.PARENT}/" in path:
            if number == "0":
                hierarchy = cgroups.hierarchy()
                return {f"cgroup_v2:{'+'.join(hierarchy.controllers)}"} if hierarchy else set()
            found.append(controllers)
    return {f"cgroup_v1:{'+'.join(sorted(found))}"} if found else set()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
