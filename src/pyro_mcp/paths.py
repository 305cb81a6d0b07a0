"""The name of every file pyro keeps. docs/on-disk.md explains each; a test keeps the two equal."""

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import PlatformDirs

APPLICATION = "pyro-mcp"
ENVIRONMENT_CACHE_VARIABLE = "PYRO_ENVIRONMENT_CACHE_DIR"
PLATFORM = "linux-x86_64"


@dataclass(frozen=True, slots=True)
class MachinePaths:
    """The files of one machine, ``machines/<id>/`` in the state directory."""

    directory: Path

    @property
    def scratch(self) -> Path:
        """The writable disk, a sparse ext4 image."""
        return self.directory / "scratch.ext4"

    @property
    def console(self) -> Path:
        """What the guest's kernel and agent wrote on the serial console (bounded; older half in ``console.log.1``)."""
        return self.directory / "console.log"

    @property
    def vmm_log(self) -> Path:
        """What the VMM wrote on stderr (bounded; older half in ``vmm.log.1``)."""
        return self.directory / "vmm.log"

    @property
    def control(self) -> Path:
        """The VMM's control socket (QMP)."""
        return self.directory / "control.sock"

    def link(self, port: int) -> Path:
        """The socket of the agent's channel number *port*."""
        return self.directory / f"link-{port:02}.sock"

    def link_lock(self, port: int) -> Path:
        """The lock of that channel."""
        return self.directory / f"link-{port:02}.lock"

    @property
    def run(self) -> Path:
        """Firecracker only: the one directory the VMM may write to, with its sockets. It belongs to the VMM's user."""
        return self.directory / "run"

    @property
    def api(self) -> Path:
        """Firecracker's API socket."""
        return self.run / "api.sock"

    @property
    def vsock(self) -> Path:
        """Firecracker's socket for connections to the guest's vsock ports."""
        return self.run / "v.sock"

    @property
    def log_pipe(self) -> Path:
        """The FIFO Firecracker logs to; the launcher reads it into ``vmm.log``."""
        return self.run / "log"

    @property
    def metrics_pipe(self) -> Path:
        """The FIFO Firecracker writes its metrics to; the launcher reads it into ``metrics.log``."""
        return self.run / "metrics"

    @property
    def metrics(self) -> Path:
        """Firecracker's metrics, a JSON object per line (bounded; older half in ``metrics.log.1``)."""
        return self.directory / "metrics.log"

    @property
    def jail(self) -> Path:
        """Where the VMM's root directory is mounted, in a mount namespace of its own; empty as the host sees it."""
        return self.directory / "jail"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where state and caches live. *state* and *cache* are pyro's own roots, *environments* holds the images."""

    state: Path
    cache: Path
    environments: Path

    @classmethod
    def of_user(cls, *, state: Path | None = None, environments: Path | None = None) -> "Paths":
        """The user's directories (XDG), or the given ones; ``PYRO_ENVIRONMENT_CACHE_DIR`` moves the images."""
        dirs = PlatformDirs(APPLICATION, appauthor=False)
        cache = Path(dirs.user_cache_dir)
        moved = os.environ.get(ENVIRONMENT_CACHE_VARIABLE)
        images = environments or (Path(moved).expanduser().absolute() if moved else cache / "environments")
        return cls(state=state or Path(dirs.user_state_dir), cache=cache, environments=images)

    @property
    def database(self) -> Path:
        """The records of all machines (SQLite)."""
        return self.state / "pyro.db"

    @property
    def machines(self) -> Path:
        """A directory per machine."""
        return self.state / "machines"

    def machine(self, machine_id: str) -> MachinePaths:
        """The files of the machine *machine_id*."""
        return MachinePaths(self.machines / machine_id)

    @property
    def failures(self) -> Path:
        """Evidence of the last failed starts: a directory per machine with its console and VMM log."""
        return self.state / "failures"

    @property
    def host_facts(self) -> Path:
        """What was measured about this host in its present boot (KVM verdict, TSC frequency)."""
        return self.state / "host.json"

    @property
    def sweep_lock(self) -> Path:
        """Held by the process that sweeps."""
        return self.state / "sweep.lock"

    @property
    def runtimes(self) -> Path:
        """Kernel and initramfs sets, a directory per content."""
        return self.cache / "runtime"

    @property
    def runtime_lock(self) -> Path:
        """Held while a runtime is built."""
        return self.cache / "runtime.lock"

    @property
    def vmms(self) -> Path:
        """Firecracker and its jailer, a directory per version."""
        return self.cache / "vmm"

    @property
    def vmm_lock(self) -> Path:
        """Held while Firecracker is installed."""
        return self.cache / "vmm.lock"

    @property
    def vmm_verified(self) -> Path:
        """The digests of VMM binaries that were compared, and what tells that the files are still the same."""
        return self.cache / "vmm-verified.json"

    @property
    def scratch_images(self) -> Path:
        """Formatted empty scratch disks, a file per size."""
        return self.cache / "scratch"

    @property
    def lab(self) -> Path:
        """Contributors only: what the lab's machine is made of (``pyro_mcp.testing.lab``)."""
        return self.cache / "lab"

    @property
    def images(self) -> Path:
        """Root filesystems by content: ``sha256-<digest>.squashfs``."""
        return self.environments / "images"

    @property
    def installed(self) -> Path:
        """Installed environments: a directory per name and version with its ``environment.json``."""
        return self.environments / PLATFORM

    @property
    def environment_locks(self) -> Path:
        """A lock file per environment, held while it is installed."""
        return self.environments / "locks"
