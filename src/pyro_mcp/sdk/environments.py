"""The part of ``Pyro`` that works with environments: the catalog's, images of registries, imported ones."""

from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.engine.machines import INSTALL_SECONDS
from pyro_mcp.environments.facade import Environments
from pyro_mcp.environments.installed import Installed, Kernel
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import (
    EnvironmentRecord,
    ExportedEnvironment,
    PrunedEnvironments,
    PublishedEnvironment,
    PulledEnvironment,
    TemplateRecord,
    check_path,
)
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build


class EnvironmentMethods:
    """Environments, by the catalog's names, by names of registries' images, by names given at an import.

    Every method raises a ``PyroError``: UnknownEnvironment, EnvironmentFault (ImageRefused, RegistryFault), NoSpace,
    and what else the operation raises.
    """

    _paths: Paths
    _settings: Settings
    _progress: Progress
    _environments: Environments

    def list_environments(self) -> list[EnvironmentRecord]:
        """All environments of the catalog, each with whether it is installed, then the installed images; by name."""
        return self._environments.records()

    def inspect_environment(self, environment: str) -> EnvironmentRecord:
        """One environment."""
        return self._environments.inspect(environment)

    def pull_environment(self, environment: str, *, template: bool = False, update: bool = False) -> PulledEnvironment:
        """Install *environment* (and the kernel it runs on) if it is not there; its image is verified.

        *template*: also make the template of a machine with the default sizes, so that the first run is fast, too.
        *update*: take what its tag stands for today, and pin the tag to that.
        """
        self._environments.inspect(environment)  # whether it can be had at all, before anything is fetched
        deadline = Deadline.after(INSTALL_SECONDS)
        kernel = self._kernel(deadline)
        installed = self._environments.pull(environment, progress=self._progress, deadline=deadline, update=update)
        if template:
            self.build_template(environment=environment)
        return _pulled(installed, kernel)

    def import_environment(self, path: str | Path, *, name: str) -> PulledEnvironment:
        """Install an image from *path* as *name*: an OCI layout or archive, what docker saved, a root filesystem's tar.

        ``DIRECTORY:TAG`` chooses one of several images in a layout.
        """
        source = check_path("path", path)
        deadline = Deadline.after(INSTALL_SECONDS)
        installed = self._environments.import_image(source, name, progress=self._progress, deadline=deadline)
        return _pulled(installed, self._kernel(deadline))

    def export_environment(self, environment: str, path: str | Path) -> ExportedEnvironment:
        """Write an installed environment and its kernel as an OCI layout: a directory, or an archive (``.tar``)."""
        target = check_path("path", path)
        if not self._environments.inspect(environment)["installed"]:
            self._environments.verify(environment)  # says so, before a kernel is fetched
        kernel = self._kernel(Deadline.after(INSTALL_SECONDS))
        digest = self._environments.export(environment, target, kernel, progress=self._progress)
        return {"name": environment, "path": str(target), "digest": digest}

    def verify_environments(self, *environments: str) -> list[EnvironmentRecord]:
        """Hash the images of *environments* (none: of all that were installed).

        Raises EnvironmentFault for the first that is missing or damaged.
        """
        names = environments or self._environments.recorded()
        return [self._environments.verify(name).record for name in names]

    def publish_environment(self, layout: str | Path, target: str) -> PublishedEnvironment:
        """Put an exported environment into a registry as *target*; only what is not there is sent."""
        import os

        from pyro_mcp.environments.oci.publish import publish
        from pyro_mcp.environments.oci.reference import parse

        directory = check_path("layout", layout)
        if not directory.is_dir():
            raise InvalidRequest(f"{directory} is no OCI layout", remedy="Make one: pyro env export ENV DIRECTORY")
        deadline = Deadline.after(INSTALL_SECONDS)
        return publish(directory, parse(target), self._settings, os.environ, progress=self._progress, deadline=deadline)

    def pinned_environments(self) -> dict[str, str]:
        """Which digest each tag is pinned to (``environments.lock``)."""
        return self._environments.pins()

    def prune_environments(
        self, *, everything: bool = False, older_than_seconds: float | None = None
    ) -> PrunedEnvironments:
        """Remove what no installed environment needs.

        *everything*: the environments, too; *older_than_seconds*: those that were not used for that long.
        """
        age = older_than_seconds
        if isinstance(age, bool) or not isinstance(age, int | float | None) or (age is not None and not age >= 0):
            raise InvalidRequest("older_than_seconds must be a number that is not negative")
        return self._environments.prune(everything=everything, older_than=older_than_seconds)

    def build_template(self, *, environment: str) -> TemplateRecord:
        """See ``Pyro``."""
        raise NotImplementedError

    def _kernel(self, deadline: Deadline) -> Kernel:
        runtime = build.ensure(self._paths, self._settings, self._progress, deadline)
        return Kernel(runtime.kernel, runtime.kernel_version)


def _pulled(installed: Installed, kernel: Kernel) -> PulledEnvironment:
    return {
        **installed.record,
        "kernel_image": str(kernel.path),
        "rootfs_image": str(installed.rootfs),
        "source": installed.source,
    }
