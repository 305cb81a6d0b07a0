"""The parameters of the tools: types, limits, and what a model is told of each."""

from typing import Annotated, Literal

from pydantic import Field

from pyro_mcp import model
from pyro_mcp.mcp_server.budget import OUTPUT_CHARS_DEFAULT, OUTPUT_CHARS_MOST
from pyro_mcp.network.policy import HOSTS_MOST

STDIN_CHARS_MOST = 1_000_000
VARIABLES_MOST = 256
LOGS_MOST = 100
WAIT_SECONDS_MOST = 50

Environment = Annotated[
    str,
    Field(
        description="Name of an environment, for instance debian:12; vm_list_environments lists them.",
        min_length=1,
        max_length=400,
        pattern=r"^[!-~]+$",
    ),
]
Command = Annotated[
    str,
    Field(
        description="Shell command; runs non-interactively with /bin/sh -lc in the guest.",
        min_length=1,
        max_length=model.COMMAND_BYTES_MOST,
    ),
]
VcpuCount = Annotated[
    int, Field(description="Virtual CPUs.", ge=model.VCPU_LIMITS[0], le=model.VCPU_LIMITS[1]),
]  # fmt: skip
MemMib = Annotated[int, Field(description="Memory in MiB.", ge=model.MEM_MIB_LIMITS[0], le=model.MEM_MIB_LIMITS[1])]
TimeoutSeconds = Annotated[
    float,
    Field(description="End the command after so many seconds; exit code 124.", gt=0, le=model.TIMEOUT_SECONDS_MOST),
]
JobTimeoutSeconds = Annotated[
    float | None,
    Field(
        description="End the command after so many seconds; by default no limit.", gt=0, le=model.TIMEOUT_SECONDS_MOST
    ),
]
TtlSeconds = Annotated[
    int,
    Field(
        description="Longest life of the machine in seconds; then it is deleted.",
        ge=model.TTL_SECONDS_LIMITS[0],
        le=model.TTL_SECONDS_LIMITS[1],
    ),
]
Network = Annotated[
    bool, Field(description="Let the guest reach the public internet, and nothing else. Off by default.")
]
AllowedHost = Annotated[str, Field(max_length=260)]
AllowHosts = Annotated[
    list[AllowedHost] | None,
    Field(
        description="Let the guest reach only these: HOST or HOST:PORT; without a port 80 and 443.",
        max_length=HOSTS_MOST,
    ),
]
LearnNetwork = Annotated[
    bool, Field(description="Network on; the result's network.learned lists the hosts it used, for allow_hosts.")
]
AllowHostCompat = Annotated[
    bool,
    Field(description="Run on the host itself where no VM can run: no isolation. Refused unless the user allowed it."),
]
Variables = Annotated[
    dict[str, str] | None, Field(description="Environment variables for the command.", max_length=VARIABLES_MOST)
]
Cwd = Annotated[
    str, Field(description="Working directory in the guest, absolute; empty: the default.", max_length=4095)
]
Stdin = Annotated[str | None, Field(description="Text for the command's standard input.", max_length=STDIN_CHARS_MOST)]
IdempotencyKey = Annotated[
    str | None,
    Field(
        description="Any unique text. A call repeated with the same key does not run again: it gets the first result.",
        min_length=1,
        max_length=128,
    ),
]
MaxOutputChars = Annotated[
    int,
    Field(
        description="Most characters of output in the answer; more is cut in the middle, and job_read has it.",
        ge=400,
        le=OUTPUT_CHARS_MOST,
    ),
]
OUTPUT_DEFAULT = OUTPUT_CHARS_DEFAULT
VmId = Annotated[str, Field(description="Id of a machine, from vm_create.", pattern=r"^[0-9a-f]{12}$")]
TaskId = Annotated[
    str,
    Field(description="Id or name of a task.", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
]
OptionalTaskId = Annotated[
    str | None,
    Field(
        description="The task, if the job is a command of a task and this server did not start it.",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    ),
]
TaskName = Annotated[
    str | None,
    Field(description="A name to find the task by, unique.", max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
]
JobId = Annotated[str, Field(description="A job_id from an earlier answer.", pattern=r"^[0-9a-f]{16}$")]
SourcePath = Annotated[
    str,
    Field(
        description="Directory, or archive (.tar, .tar.gz, .tgz), on the host, below a directory this server may read.",
        min_length=1,
        max_length=4096,
    ),
]
OptionalSourcePath = Annotated[
    str | None,
    Field(
        description="Directory, or archive (.tar, .tar.gz, .tgz), on the host, to fill /workspace with.",
        min_length=1,
        max_length=4096,
    ),
]
Destination = Annotated[
    str, Field(description="Where in the guest: /workspace or below it.", min_length=1, max_length=4096)
]
GuestPort = Annotated[int, Field(description="TCP port a program in the guest listens on.", ge=1, le=65_535)]
HostPort = Annotated[int, Field(description="TCP port of the host; 0: one that is free.", ge=0, le=65_535)]
PublishAddress = Annotated[
    str,
    Field(
        description="IP address of the host to listen on; only loopback unless the user allowed more.", max_length=45
    ),
]
HostPorts = Annotated[
    list[int] | None, Field(description="The host ports to take back; by default all of the task.", max_length=8)
]
Delete = Annotated[bool, Field(description="Remove from dest what the source does not have.")]
Last = Annotated[int, Field(description="How many of the newest commands.", ge=1, le=LOGS_MOST)]
Stream = Annotated[Literal["stdout", "stderr"], Field(description="Which output.")]
Cursor = Annotated[
    int,
    Field(
        description="A byte offset: 0, then the next_cursor of the last answer. Negative: so far before the end.",
        ge=-(1 << 62),
        le=1 << 62,
    ),
]
WaitSeconds = Annotated[
    float, Field(description="How long to wait for its end before answering.", ge=0, le=WAIT_SECONDS_MOST)
]
