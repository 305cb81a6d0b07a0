"""The name of every file pyro keeps. docs/on-disk.md explains each; a test keeps the two equal."""

import os
from pathlib import Path
from typing import NamedTuple

APPLICATION = "pyro-mcp"
ENVIRONMENT_CACHE_VARIABLE = "PYRO_ENVIRONMENT_CACHE_DIR"
PLATFORM = "linux-x86_64"


class MachinePaths(NamedTuple):
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
    def link_wanted(self) -> Path:
        """Held (shared) by processes that wait for a channel to get free."""
        return self.directory / "link-wanted.lock"

    @property
    def release(self) -> Path:
        """Asks the launcher to let the machine outlive its starter; it does so at SIGUSR1 and removes the file."""
        return self.directory / "release"

    @property
    def new_deadline(self) -> Path:
        """A new end of the machine's life, Unix milliseconds; the launcher takes it at SIGUSR1 and removes the file."""
        return self.directory / "deadline"

    @property
    def end(self) -> Path:
        """How the VMM ended, written by the launcher: exit code, signal, reason, time."""
        return self.directory / "end.json"

    @property
    def network(self) -> Path:
        """What the gate of a machine with a network keeps; it belongs to the gate's user."""
        return self.directory / "network"

    @property
    def resolver_stats(self) -> Path:
        """What the guest asked the resolver for, in numbers."""
        return self.network / "resolver.json"

    @property
    def gate_lock(self) -> Path:
        """Locked by the gate for as long as it lives."""
        return self.network / "gate.lock"

    @property
    def namespace(self) -> Path:
        """Where the gate shows pasta the machine's network namespace, in a mount namespace of its own."""
        return self.network / "namespace"

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


class TemplatePaths(NamedTuple):
    """The files of one template, ``templates/<key>/`` in the cache."""

    directory: Path

    @property
    def state(self) -> Path:
        """The devices and processors of the paused machine."""
        return self.directory / "state.bin"

    @property
    def memory(self) -> Path:
        """Its memory (sparse), mapped copy-on-write by the machines that go on from it. Nobody may write to it."""
        return self.directory / "memory.bin"

    @property
    def scratch(self) -> Path:
        """Its writable disk (sparse), copied for each machine."""
        return self.directory / "scratch.ext4"

    @property
    def record(self) -> Path:
        """What it was made from, and what tells that its files are still the same."""
        return self.directory / "template.json"

    @property
    def used(self) -> Path:
        """An empty file; its time is that of the last use."""
        return self.directory / "used"


class TaskPaths(NamedTuple):
    """The files of one task, ``tasks/<id>/`` in the state directory. Its machine has a directory of its own."""

    directory: Path

    @property
    def used(self) -> Path:
        """An empty file, locked (shared) by each pyro call on the task; its time is that of the last call."""
        return self.directory / "used"

    @property
    def change_lock(self) -> Path:
        """Held while the task's life is changed (extended, deleted)."""
        return self.directory / "change.lock"

    @property
    def commands(self) -> Path:
        """What the task's commands wrote."""
        return self.directory / "commands"

    def stdout(self, sequence: int) -> Path:
        """What the command number *sequence* wrote on stdout (bounded); read-only once it is complete."""
        return self.commands / f"{sequence:06}.stdout"

    def stderr(self, sequence: int) -> Path:
        """What the command number *sequence* wrote on stderr (bounded); read-only once it is complete."""
        return self.commands / f"{sequence:06}.stderr"

    @property
    def workspace(self) -> Path:
        """The working directory of a task without any VMM (``--allow-host-compat``)."""
        return self.directory / "workspace"


class Paths(NamedTuple):
    """Where state and caches live. *state* and *cache* are pyro's own roots, *environments* holds the images."""

    state: Path
    cache: Path
    environments: Path

    @classmethod
    def of_user(cls, *, state: Path | None = None, environments: Path | None = None) -> "Paths":
        """The user's directories (XDG), or the given ones; ``PYRO_ENVIRONMENT_CACHE_DIR`` moves the images."""
        cache = user_directory("XDG_CACHE_HOME", ".cache")
        moved = os.environ.get(ENVIRONMENT_CACHE_VARIABLE)
        images = environments or (Path(moved).expanduser().absolute() if moved else cache / "environments")
        return cls(state=state or user_directory("XDG_STATE_HOME", ".local/state"), cache=cache, environments=images)

    @property
    def database(self) -> Path:
        """The records of all machines and tasks (SQLite)."""
        return self.state / "pyro.db"

    @property
    def machines(self) -> Path:
        """A directory per machine."""
        return self.state / "machines"

    def machine(self, machine_id: str) -> MachinePaths:
        """The files of the machine *machine_id*."""
        return MachinePaths(self.machines / machine_id)

    @property
    def tasks(self) -> Path:
        """A directory per task."""
        return self.state / "tasks"

    def task(self, task_id: str) -> TaskPaths:
        """The files of the task *task_id*."""
        return TaskPaths(self.tasks / task_id)

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper as long as it lives; its pid is in it."""
        return self.state / "keeper.lock"

    @property
    def keeper_log(self) -> Path:
        """What the keeper did (bounded)."""
        return self.state / "keeper.log"

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
    def templates(self) -> Path:
        """Paused machines that others go on from: a directory per key; ``.partial-<key>-*`` while one is made."""
        return self.cache / "templates"

    def template(self, key: str) -> TemplatePaths:
        """The files of the template *key*."""
        return TemplatePaths(self.templates / key)

    def template_lock(self, key: str) -> Path:
        """Held while the template *key* is made or removed."""
        return self.templates / f"{key}.lock"

    def template_failure(self, key: str) -> Path:
        """Why the template *key* could not be made; its time says when it may be tried again."""
        return self.templates / f"{key}.failed"

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
    def blobs(self) -> Path:
        """Parts of images that are being pulled; ``.partial-*`` ones are still coming in."""
        return self.environments / "blobs"

    @property
    def environments_lock(self) -> Path:
        """Which digest each tag is pinned to; ``PYRO_ENVIRONMENTS_LOCK`` names another file."""
        return self.state / "environments.lock"

    @property
    def environment_locks(self) -> Path:
        """A lock file per environment, held while it is installed."""
        return self.environments / "locks"


def user_directory(variable: str, default: str) -> Path:
    """Our directory below the user's of one purpose (XDG Base Directory Specification: a relative path is ignored)."""
    chosen = os.environ.get(variable, "")
    base = Path(chosen) if chosen.startswith("/") else Path.home() / default
    return base / APPLICATION
