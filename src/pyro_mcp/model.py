"""The words all layers share: what a machine is asked to be, what a run gives back, and the limits of both.

Results are ``TypedDict``: the SDK returns them, the CLI prints them with ``--json``, the MCP server sends them.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_args

from pyro_mcp.errors import InvalidRequest

VCPU_LIMITS = (1, 8)
MEM_MIB_LIMITS = (256, 32768)
DISK_MIB_LIMITS = (64, 1 << 20)
TTL_SECONDS_LIMITS = (60, 7 * 24 * 3600)
TIMEOUT_SECONDS_MOST = 30 * 24 * 3600
COMMAND_BYTES_MOST = 128 * 1024 - 1  # the kernel takes no longer argument (MAX_ARG_STRLEN with its NUL, execve(2))
ENVIRONMENT_BYTES_MOST = 64 * 1024
OUTPUT_BYTES_MOST = 1 << 20

DEFAULT_VCPU_COUNT = 1
DEFAULT_MEM_MIB = 1024
DEFAULT_DISK_MIB = 4096
DEFAULT_TTL_SECONDS = 600
DEFAULT_TIMEOUT_SECONDS = 30
TTL_BEYOND_TIMEOUT_SECONDS = 120  # for the boot before the command and the clean-up after it

IDLE_SECONDS_LIMITS = (1, 7 * 24 * 3600)
LABELS_MOST = 64
LABEL_VALUE_MOST = 120
WORKSPACE = "/workspace"

PATH_BYTES_MOST = 4095  # what Linux takes
FILE_BYTES_MOST = 255
MACHINE_ID = re.compile(r"[0-9a-f]{12}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?")
VARIABLE = re.compile(r"[^=\0]+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

ExecutionMode = Literal["guest_vsock", "guest_serial", "host_compat", "pending"]
MachineState = Literal["created", "started", "stopped"]
# creating: not yet usable; stopped: its VM has ended before its time; expired: its time, or its idle time, is over.
TaskState = Literal["creating", "started", "stopped", "expired", "deleting", "damaged"]
# lost: nobody knows how it ended, and ``reason`` says why.
CommandState = Literal["running", "done", "lost"]
# The least that must stand between a guest and the host. "hardware": a virtual machine that KVM runs.
IsolationLevel = Literal["any", "hardware"]
ISOLATION_LEVELS: tuple[IsolationLevel, ...] = get_args(IsolationLevel)


def new_token() -> str:
    """12 random lower-case hex digits: a name that nothing has and nobody guesses.

    What the module ``secrets`` would do; every command waits for this one, and that loads seven others.
    """
    return os.urandom(6).hex()


def new_machine_id() -> str:
    """A random id, 12 lower-case hex digits."""
    return new_token()


def check_machine_id(machine_id: str) -> str:
    """Return *machine_id*; raises InvalidRequest unless it is 12 lower-case hex digits."""
    if not isinstance(machine_id, str) or not MACHINE_ID.fullmatch(machine_id):
        raise InvalidRequest(f"{machine_id!r:.60} is not a machine id (12 lower-case hex digits)")
    return machine_id


def check_between(name: str, value: int, limits: tuple[int, int]) -> int:
    """Return *value*; raises InvalidRequest unless it is a whole number within *limits*."""
    low, high = limits
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(f"{name} must be between {low} and {high}")
    return value


# public: the internet and nothing else; learn: the same, and on record; allow-list: only ``hosts``.
NetworkMode = Literal["public", "learn", "allow-list"]
NETWORK_MODES: tuple[NetworkMode, ...] = get_args(NetworkMode)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Where a guest may go; ``pyro_mcp.network.policy.parse`` makes and checks it.

    *hosts*: the names and IPv4 addresses of an allow-list, each ``HOST`` (the ports of the web) or ``HOST:PORT``.
    *private*: closed ranges that are open to this machine, as CIDR.
    """

    mode: NetworkMode = "public"
    hosts: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NetworkPolicy":
        """Read a stored policy; raises ValueError, KeyError or TypeError for one that is damaged."""
        if value["mode"] not in NETWORK_MODES:
            raise ValueError(f"unknown network mode {value['mode']!r}")
        return cls(value["mode"], tuple(map(str, value["hosts"])), tuple(map(str, value["private"])))


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a machine is asked to be. Raises InvalidRequest for sizes outside the limits. *network*: none without."""

    environment: str
    vcpu_count: int = DEFAULT_VCPU_COUNT
    mem_mib: int = DEFAULT_MEM_MIB
    disk_mib: int = DEFAULT_DISK_MIB
    ttl_seconds: int = DEFAULT_TTL_SECONDS
    network: NetworkPolicy | None = None
    allow_host_compat: bool = False
    driver: str = "auto"
    require_isolation: IsolationLevel = "any"

    def __post_init__(self) -> None:
        check_between("vcpu_count", self.vcpu_count, VCPU_LIMITS)
        check_between("mem_mib", self.mem_mib, MEM_MIB_LIMITS)
        check_between("disk_mib", self.disk_mib, DISK_MIB_LIMITS)
        check_between("ttl_seconds", self.ttl_seconds, TTL_SECONDS_LIMITS)
        if self.require_isolation not in ISOLATION_LEVELS:
            raise InvalidRequest(f"require_isolation must be one of {', '.join(ISOLATION_LEVELS)}")

    def lasting(self, timeout_seconds: float) -> "MachineSpec":
        """This machine for one command of *timeout_seconds*: the default time to live does not cut the command off."""
        if self.ttl_seconds != DEFAULT_TTL_SECONDS:
            return self
        needed = min(math.ceil(timeout_seconds) + TTL_BEYOND_TIMEOUT_SECONDS, TTL_SECONDS_LIMITS[1])
        return dataclasses.replace(self, ttl_seconds=max(self.ttl_seconds, needed))


def check_name(what: str, name: str) -> str:
    """Return *name*; raises InvalidRequest unless it is a word of at most 64 letters, digits, ``.``, ``_`` or ``-``."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequest(f"{what} {name!r:.80} must be 1 to 64 letters, digits, '.', '_' or '-'")
    return name


def check_path(what: str, path: str | os.PathLike[str]) -> Path:
    """*path* of this host, made absolute, ``~`` expanded; raises InvalidRequest for what no path can be."""
    try:
        text = os.fspath(path)
        found = Path(text).expanduser().absolute()
        data = os.fsencode(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"{what} is not a path: {path!r:.80}") from error
    if not text or b"\0" in data or len(data) > PATH_BYTES_MOST or max(map(len, data.split(b"/"))) > FILE_BYTES_MOST:
        raise InvalidRequest(f"{what} cannot be a path: {text!r:.80}")
    return found


def check_words(what: str, words: Iterable[str]) -> tuple[str, ...]:
    """*words* as a tuple; raises InvalidRequest for one string in place of several, and for what is no text."""
    found = () if isinstance(words, str | bytes | Mapping) or not isinstance(words, Iterable) else tuple(words)
    if (not found and words not in ((), [])) or not all(isinstance(word, str) for word in found):
        raise InvalidRequest(f"{what} must be a list of texts")
    return found


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a task is asked to be, besides its machine. *idle_seconds*: its end when nothing runs and nobody asks."""

    machine: MachineSpec
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    idle_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None and MACHINE_ID.fullmatch(check_name("name", self.name)):
            raise InvalidRequest("a name must not look like a task id (12 lower-case hex digits)")
        if self.idle_seconds is not None:
            check_between("idle_seconds", self.idle_seconds, IDLE_SECONDS_LIMITS)
        if len(self.labels) > LABELS_MOST:
            raise InvalidRequest(f"a task has at most {LABELS_MOST} labels")
        for key, value in self.labels.items():
            check_name("label", key)
            if not isinstance(value, str) or len(value) > LABEL_VALUE_MOST or not value.isprintable():
                raise InvalidRequest(
                    f"label {key} must have a printable value of at most {LABEL_VALUE_MOST} characters"
                )


@dataclass(frozen=True, slots=True)
class Terminal:
    """The size of a terminal in characters, and its type."""

    rows: int
    columns: int
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """What to run in a guest: *command* goes to ``/bin/sh -lc``. Times are seconds; *cwd* empty: the user's home.

    With *argv* that runs in place of the shell, and *command* only says it in one line.
    """

    command: str
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = ""
    terminal: Terminal | None = None
    stdin: bool = False
    argv: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_command(self.command)
        _check_words(self.argv)
        _check_timeout(self.timeout_seconds)
        _check_environment(self.env)
        if not isinstance(self.cwd, str) or (
            self.cwd and (not self.cwd.startswith("/") or "\0" in self.cwd or len(self.cwd) > PATH_BYTES_MOST)
        ):
            raise InvalidRequest("cwd must be an absolute path in the guest")
        if not isinstance(self.user, str) or (self.user and not USER.fullmatch(self.user)):
            raise InvalidRequest("user must be a name, a uid, name:group or uid:gid")


def byte_size(name: str, text: str) -> int:
    """The length of *text* in bytes; raises InvalidRequest for characters that have none (lone surrogates)."""
    try:
        return len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name:.60} holds characters that cannot be encoded") from error


def _check_command(command: str) -> None:
    if not isinstance(command, str) or not command.strip():
        raise InvalidRequest("command must not be empty", remedy="Give the command after `--`.")
    if "\0" in command:
        raise InvalidRequest("command must not contain a NUL byte")
    if byte_size("command", command) > COMMAND_BYTES_MOST:
        raise InvalidRequest(
            f"command is longer than {COMMAND_BYTES_MOST} bytes",
            remedy="Pipe a long script through standard input: `pyro run -i ENV -- sh < script`.",
        )


def _check_words(argv: tuple[str, ...]) -> None:
    for word in argv:
        if "\0" in word or byte_size("command", word) > COMMAND_BYTES_MOST:
            raise InvalidRequest(f"a word of the command holds a NUL byte or more than {COMMAND_BYTES_MOST} bytes")


def _check_timeout(seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InvalidRequest("timeout_seconds must be positive")
    if seconds > TIMEOUT_SECONDS_MOST:
        raise InvalidRequest(f"timeout_seconds must be at most {TIMEOUT_SECONDS_MOST}")


def _check_environment(env: dict[str, str]) -> None:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str) or not VARIABLE.fullmatch(name) or "\0" in value:
            raise InvalidRequest(f"{name!r:.60} is not a variable that can be set", remedy="Use NAME=VALUE.")
    size = sum(byte_size(name, name) + byte_size(name, value) + 2 for name, value in env.items())
    if size > ENVIRONMENT_BYTES_MOST:
        raise InvalidRequest(f"env is larger than {ENVIRONMENT_BYTES_MOST} bytes")


class Isolation(TypedDict):
    """What stands between the command and the host."""

    vmm: str
    accelerator: str
    sandbox: list[str]


class Cleanup(TypedDict):
    """How the machine was removed."""

    vm_id: str
    deleted: bool
    reason: str


class NetworkReport(TypedDict):
    """The network a machine had. *policy* ``public``, ``learn`` or ``allow-list``.

    *problem*: why no connection works although the machine runs, and what helps; empty when all is well.
    *denied*: packets by class, and under ``name`` refused questions to the resolver; ``None``: not to be read any more.
    *refused_names*: the first of those names. *learned*: with ``learn``, the hosts an allow-list would need.
    """

    policy: str
    allow_hosts: list[str]
    allow_private: list[str]
    problem: str
    denied: dict[str, int] | None
    refused_names: list[str]
    learned: list[str] | None


class NetworkInfo(TypedDict):
    """The network of a machine. Without one, *reason* says why nothing goes out."""

    vm_id: str
    network_enabled: bool
    outbound_connectivity_expected: bool
    reason: NotRequired[str]
    tap_name: NotRequired[str]
    guest_ip: NotRequired[str]
    gateway_ip: NotRequired[str]
    subnet_cidr: NotRequired[str]
    mac_address: NotRequired[str]
    dns_servers: NotRequired[list[str]]
    network: NotRequired[NetworkReport]


class PublishedPort(TypedDict):
    """A port of this host that leads to a port of a guest."""

    address: str
    host_port: int
    guest_port: int


class RunResult(TypedDict):
    """One command and its machine. *network* is ``None`` when it had none.

    *stdout* and *stderr* are text (other bytes become U+FFFD), each cut in the middle beyond 1 MiB. *start_error* says
    why the command could not be started at all; it is empty otherwise.
    """

    vm_id: str
    environment: str
    environment_version: str | None
    command: str
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    stdout_bytes: int
    stderr_bytes: int
    exit_code: int
    duration_ms: int
    timed_out: bool
    causes: list[str]
    start_error: str
    execution_mode: ExecutionMode
    isolation: Isolation
    network: NetworkReport | None
    published_ports: list[PublishedPort]
    cleanup: Cleanup


class VmRecord(TypedDict):
    """A machine as its users see it. *created_at* and *expires_at* are Unix seconds."""

    vm_id: str
    environment: str
    environment_version: str | None
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    ttl_seconds: int
    created_at: float
    expires_at: float
    state: MachineState
    network_enabled: bool
    allow_host_compat: bool
    guest_ip: str | None
    tap_name: str | None
    execution_mode: ExecutionMode
    isolation: Isolation
    metadata: dict[str, str]


class DeletedVm(TypedDict):
    """The answer to a deletion."""

    vm_id: str
    deleted: bool
    reason: str


class ReapedVms(TypedDict):
    """Machines removed because their time was over."""

    deleted_vm_ids: list[str]
    count: int


class EnvironmentRecord(TypedDict):
    """An environment and whether it is installed. *pinned_digest*: what its tag stands for, once it was pulled."""

    name: str
    version: str
    description: str
    default_packages: list[str]
    distribution: str
    distribution_version: str
    platform: str
    oci_registry: str
    oci_repository: str
    oci_reference: str
    source_digest: str | None
    compatibility: str
    catalog_version: str
    installed: bool
    cache_dir: str
    install_dir: str
    install_manifest: NotRequired[str]
    pinned_digest: NotRequired[str]


class PulledEnvironment(EnvironmentRecord):
    """An environment that was just made sure to be installed."""

    kernel_image: str
    rootfs_image: str
    source: str


class PublishedEnvironment(TypedDict):
    """An environment in a registry: *sent_blobs* and *sent_bytes* went there now, *present_blobs* were there."""

    reference: str
    digest: str
    sent_blobs: int
    present_blobs: int
    sent_bytes: int
    manifest_sent: bool


class ExportedEnvironment(TypedDict):
    """An environment in a file or directory. *digest* is that of its manifest."""

    name: str
    path: str
    digest: str


class PrunedEnvironments(TypedDict):
    """What a prune removed."""

    count: int
    deleted_environment_dirs: list[str]


class RuntimePart(TypedDict):
    """A part that machines are started from. *state* is ``ready``, ``absent`` or ``damaged``; why is in *problem*.

    *source*: where it came from. *warnings*: what is to be known about this version.
    """

    name: str
    version: str
    state: str
    source: str
    path: str
    sha256: str
    problem: str
    warnings: list[str]


class RuntimeParts(TypedDict):
    """All parts. *ok*: none is damaged."""

    ok: bool
    parts: list[RuntimePart]


class TemplateRecord(TypedDict):
    """A template: a paused machine that others go on from. Sizes are MiB, times Unix seconds."""

    key: str
    environment: str
    driver: str
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    size_mib: int
    created_at: float
    used_at: float
    intact: bool


class PrunedTemplates(TypedDict):
    """What a prune removed."""

    count: int
    deleted_templates: list[str]
    freed_mib: int
