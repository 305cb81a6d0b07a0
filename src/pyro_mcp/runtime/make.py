"""Make a runtime of a kernel package and the agent: a kernel, an initramfs for each link, a manifest."""

import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.config import Settings
from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, storage, write_atomically, write_json
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import initramfs, kernel, modules, vmlinux
from pyro_mcp.runtime.agent import Agent, read_agent
from pyro_mcp.runtime.manifest import (
    DIGEST,
    INDEX,
    INITRAMFS,
    INITRAMFS_VSOCK,
    KERNEL,
    MANIFEST,
    PARTS,
    Runtime,
    digest_of,
    load,
    part_record,
    reason_not_intact,
)

PARTIAL = ".partial-"
FILE_MODE = 0o644  # a QEMU of another uid opens them again through /proc/self/fd
KEPT = 2  # the runtime in use and the one before, from which a machine may be starting


@dataclass(frozen=True, slots=True)
class Builder:
    """Who holds the runtime lock, and builds."""

    paths: Paths
    settings: Settings
    progress: Progress
    deadline: Deadline

    def build(self, agent_path: Path, *, refresh: bool, damage: str) -> Runtime:
        """Make the runtime of this agent unless it is there, and put it in use. *damage*: why it is needed."""
        self._sweep()
        agent, program = read_agent(agent_path)
        work = private_directory(self.paths.runtimes / f"{PARTIAL}{secrets.token_hex(6)}")
        try:
            package = self._kernel(work, refresh=refresh)
            inputs = {**modules.RECIPE, "agent": agent.sha256, "kernel": package.described}
            target = self.paths.runtimes / digest_of(inputs)
            present = target.exists()
            damage = (reason_not_intact(target, agent.path, full=True) if present else "") or damage
            if damage:
                self.progress.note(f"The runtime is built again: {damage}.")
            if damage or not present:
                self.progress.phase("runtime-build", kernel=package.version)
                made = private_directory(work / target.name)
                self._make(made, package, program, inputs, work)
                _publish(made, target, work)
            self._put_in_use(agent, target.name)
            return load(target, agent.path)
        finally:
            remove_tree(work)

    def _kernel(self, work: Path, *, refresh: bool) -> kernel.KernelPackage:
        package = None if refresh else kernel.chosen(self.paths)
        return package or kernel.fetch(self.paths, self.settings, work, self.progress, self.deadline)

    def _make(
        self, made: Path, package: kernel.KernelPackage, program: bytes, inputs: dict[str, Any], work: Path
    ) -> None:
        """Write all parts and the manifest into the directory *made*."""
        with kernel.opened(package.path, work, self.deadline) as files:
            chosen = {
                link: modules.select(names, files.module, files.builtin) for link, names in modules.WANTED.items()
            }
            _write_kernel(made / KERNEL, files.image())
            release = files.release
        self.deadline.check("building the runtime", RuntimeBroken)
        write_atomically(made / INITRAMFS, initramfs.build(program, chosen["serial"]), mode=FILE_MODE)
        write_atomically(made / INITRAMFS_VSOCK, initramfs.build(program, chosen["vsock"]), mode=FILE_MODE)
        manifest = {
            "digest": made.name,
            "inputs": inputs,
            "kernel": {**inputs["kernel"], "release": release},
            "modules": {link: [module.name for module in order] for link, order in chosen.items()},
            "parts": {name: part_record(made / name) for name in PARTS},
        }
        write_json(made / MANIFEST, manifest)

    def _put_in_use(self, agent: Agent, digest: str) -> None:
        """Write the index, and remove runtimes that nobody starts from any more."""
        runtimes = self.paths.runtimes
        index = {
            "recipe": modules.RECIPE,
            "digest": digest,
            "agent": {"path": str(agent.path), **asdict(agent.identity)},
        }
        with storage(f"installing the runtime in {runtimes}"):
            os.utime(runtimes / digest)
            write_json(runtimes / INDEX, index)
            present = [path for path in runtimes.iterdir() if DIGEST.fullmatch(path.name)]
            for old in sorted(present, key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]:
                remove_tree(old)

    def _sweep(self) -> None:
        """Remove what killed builders left: the lock is held, so none lives."""
        with storage(f"sweeping {self.paths.runtimes}"):
            for path in self.paths.runtimes.glob(f"{PARTIAL}*"):
                remove_tree(path)


def _write_kernel(path: Path, image: bytes) -> None:
    with storage(f"writing {path}"), path.open("x+b") as stream:
        os.fchmod(stream.fileno(), FILE_MODE)
        vmlinux.extract(image, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _publish(made: Path, target: Path, work: Path) -> None:
    """Give the directory *made* its name, in place of a damaged one. The parts keep their times and inodes."""
    with storage(f"installing {target}"):
        if target.exists():
            target.rename(work / "damaged")
        made.rename(target)
