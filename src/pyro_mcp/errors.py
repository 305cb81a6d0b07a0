"""The one tree of errors. Every class has a code, an exit code and a usual remedy; an instance adds the cause.

::

    PyroError
    |-- InvalidRequest (ValueError)            invalid_request
    |   |-- UnknownEnvironment                 unknown_environment
    |   |-- UnknownMachine                     unknown_machine
    |   |-- UnknownTask                        unknown_task
    |   |-- UnknownJob                         unknown_job
    |   |-- SourceUnreadable                   source_unreadable
    |   |-- ArchiveRefused                     archive_refused
    |   `-- SyncConflict                       sync_conflict
    |-- OperationFailed (RuntimeError)
        |-- HostFault                          host_fault
        |   |-- ProgramMissing                 program_missing
        |   |-- ProgramFailed                  program_failed
        |   |-- NoSpace                        no_space
        |   |-- StorageFault                   storage_fault
        |   |-- PortUnavailable                port_unavailable
        |   `-- Busy                           busy
        |-- RuntimeBroken                      runtime_broken
        |-- EnvironmentFault                   environment_fault
        |   |-- ImageRefused                   image_refused
        |   `-- RegistryFault                  registry_fault
        |       `-- RegistryUnreachable        registry_unreachable
        |-- DriverUnavailable                  driver_unavailable
        |-- NetworkUnavailable                 network_unavailable
        |-- WrongState                         wrong_state
        |-- CapacityReached                    capacity_reached
        |-- MachineFault                       machine_fault
        |   |-- BootFailed                     boot_failed
        |   |-- MachineDied                    machine_died
        |   |-- MachineExpired                 machine_expired
        |   |   `-- TaskExpired                task_expired
        |   |-- LinkTimeout                    link_timeout
        |   `-- GuestProtocol                  guest_protocol
        |-- GuestRefused                       guest_refused
        |   `-- WorkspaceFull                  workspace_full
        |-- SourceChanged                      source_changed
        `-- Interrupted                        interrupted

Only the outermost surfaces catch these. Foreign failures (OSError, QMP, apt) are translated where they enter.
"""

from collections.abc import Iterable
from typing import ClassVar

EXIT_FAILURE = 125  # as docker and podman: the tool itself failed, not the command


class PyroError(Exception):
    """Anything pyro reports. ``str(error)`` is the one-line cause.

    *remedy* is what the user can do; *details* are evidence lines (a console tail, a program's output), already
    bounded.
    """

    code: ClassVar[str] = "pyro_error"
    exit_code: ClassVar[int] = EXIT_FAILURE
    usual_remedy: ClassVar[str] = "Run `pyro doctor` to see what this host lacks."

    def __init__(self, cause: str, *, remedy: str | None = None, details: Iterable[str] = ()) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy or self.usual_remedy
        self.details = tuple(details)

    def as_dict(self) -> dict[str, object]:
        """The JSON object every surface shows for a failure."""
        return {
            "ok": False,
            "error": self.cause,
            "code": self.code,
            "remedy": self.remedy,
            "details": list(self.details),
        }


class InvalidRequest(PyroError, ValueError):
    """An argument is not acceptable; nothing was started."""

    code = "invalid_request"
    usual_remedy = "Correct the argument; `pyro --help` shows what each one takes."


class UnknownEnvironment(InvalidRequest):
    """The environment is not in the catalog."""

    code = "unknown_environment"
    usual_remedy = "Run `pyro env list` to see the environments; name others in full: docker.io/library/alpine:3."


class UnknownMachine(InvalidRequest):
    """No machine of this user has that id (any more)."""

    code = "unknown_machine"
    usual_remedy = "Check the id; a machine is gone after its command, its deletion or its time to live."


class UnknownTask(InvalidRequest):
    """No task of this user has that id or name (any more)."""

    code = "unknown_task"
    usual_remedy = "Run `pyro task list` to see the tasks; one is gone after its deletion, or an hour after its end."


class UnknownJob(InvalidRequest):
    """The task has no job with that id."""

    code = "unknown_job"
    usual_remedy = "Run `pyro task logs TASK` to see its jobs."


class SourceUnreadable(InvalidRequest):
    """A file or directory that is to be pushed cannot be read; nothing was changed."""

    code = "source_unreadable"
    usual_remedy = "Check that it exists and that you may read it."


class ArchiveRefused(InvalidRequest):
    """An archive holds what may not enter a workspace, or is damaged; nothing was changed."""

    code = "archive_refused"
    usual_remedy = "Unpack it where you trust it and push the directory, or make the archive again without that member."


class SyncConflict(InvalidRequest):
    """A directory stands where something else should come, or the other way round; nothing was changed."""

    code = "sync_conflict"
    usual_remedy = "Remove it in the guest, or push with --delete, which makes the destination like the source."


class OperationFailed(PyroError, RuntimeError):
    """The request was sound and could not be carried out."""

    code = "operation_failed"


class HostFault(OperationFailed):
    """The host did not do what was asked of it."""

    code = "host_fault"


class ProgramMissing(HostFault):
    """A host program is not installed."""

    code = "program_missing"
    usual_remedy = "Run `pyro setup` to install the host packages."


class ProgramFailed(HostFault):
    """A host program ended with an error or took too long."""

    code = "program_failed"


class NoSpace(HostFault):
    """A filesystem is full, or would be."""

    code = "no_space"
    usual_remedy = "Free some disk space; `pyro env prune` removes environments that are not needed."


class StorageFault(HostFault):
    """Files of the state or the cache cannot be read or written."""

    code = "storage_fault"
    usual_remedy = "Check the owner and the permissions of the directory named above."


class PortUnavailable(HostFault):
    """A port of this host cannot be listened on; nothing was started."""

    code = "port_unavailable"
    usual_remedy = "Choose another host port, or 0 for a free one; `ss -ltnp` shows who has which."


class Busy(HostFault):
    """Another pyro process holds what is needed, and did not let go in time."""

    code = "busy"
    usual_remedy = "Wait for the other pyro process, then try again."


class RuntimeBroken(OperationFailed):
    """The kernel, the initramfs or the agent is missing, or differs from its recorded digest."""

    code = "runtime_broken"


class EnvironmentFault(OperationFailed):
    """An environment cannot be installed, or its installed image is damaged."""

    code = "environment_fault"
    usual_remedy = "Run `pyro env pull ENVIRONMENT` again; `pyro doctor` checks the host packages it needs."


class ImageRefused(EnvironmentFault):
    """An image is damaged, is not for this platform, or holds what no good image holds. Nothing of it was installed."""

    code = "image_refused"
    usual_remedy = "Use another image, or have this one built and pushed again."


class RegistryFault(EnvironmentFault):
    """A registry refused a request, or sent what it was not asked for."""

    code = "registry_fault"
    usual_remedy = "Check the name of the image and your credentials (docker login, OCI_REGISTRY_USERNAME)."


class RegistryUnreachable(RegistryFault):
    """A registry does not answer."""

    code = "registry_unreachable"
    usual_remedy = "Check the network and the proxy (https_proxy), or name a mirror in PYRO_REGISTRY_MIRRORS."


class DriverUnavailable(OperationFailed):
    """No driver can run a guest here, or not the one that was asked for."""

    code = "driver_unavailable"
    usual_remedy = "Run `pyro doctor` for the reason; `--driver auto` takes what works."


class NetworkUnavailable(OperationFailed):
    """The machine cannot have the network it was to have; it was not started."""

    code = "network_unavailable"
    usual_remedy = "Run `pyro doctor` to see what the network of a guest lacks here, or run it without --network."


class WrongState(OperationFailed):
    """The machine is not in the state this operation needs."""

    code = "wrong_state"
    usual_remedy = "Look at the machine's state first (status)."


class CapacityReached(OperationFailed):
    """One more machine would not fit on this host."""

    code = "capacity_reached"
    usual_remedy = "Delete a machine, ask for less memory, or raise PYRO_MAX_ACTIVE_VMS."


class MachineFault(OperationFailed):
    """The virtual machine or its link failed."""

    code = "machine_fault"


class BootFailed(MachineFault):
    """The guest did not come up."""

    code = "boot_failed"
    usual_remedy = "`pyro doctor --deep` boots a test guest; PYRO_DEBUG_CONSOLE=1 lets the guest's kernel talk."


class MachineDied(MachineFault):
    """The virtual machine ended while it was needed."""

    code = "machine_died"


class MachineExpired(MachineFault):
    """The machine reached its time to live."""

    code = "machine_expired"
    usual_remedy = "Give it a longer life with --ttl-seconds."


class TaskExpired(MachineExpired):
    """The task reached its time to live, or was idle for too long."""

    code = "task_expired"
    usual_remedy = "Its history can still be read (`pyro task logs`). Create a new task with a longer --ttl-seconds."


class LinkTimeout(MachineFault):
    """The agent in the guest did not answer in time."""

    code = "link_timeout"


class GuestProtocol(MachineFault):
    """The guest sent what the protocol does not allow; the machine is not trusted any further."""

    code = "guest_protocol"


class GuestRefused(OperationFailed):
    """The agent refused an operation, with one of the protocol's codes."""

    code = "guest_refused"
    usual_remedy = "Check the user, the working directory and the command for this environment."


class WorkspaceFull(GuestRefused):
    """The guest's disk cannot take what is pushed; its files are as they were."""

    code = "workspace_full"
    usual_remedy = "Remove files in the guest, or create the machine with more --disk-mib."


class SourceChanged(OperationFailed):
    """Files changed while they were read; nothing was changed in the guest."""

    code = "source_changed"
    usual_remedy = "Push again when nothing writes to the source."


class Interrupted(OperationFailed):
    """The caller asked to stop."""

    code = "interrupted"
    exit_code = 130
    usual_remedy = "Start it again when you are ready."
