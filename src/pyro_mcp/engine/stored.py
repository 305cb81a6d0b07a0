"""What a stored record holds, checked as it is read: a value of the wrong kind makes that record damaged, no more."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import Isolation

TIME_MOST = 253_402_300_799.0  # the end of the year 9999: what can be told as a date
NUMBER_MOST = 2**63 - 1
PID_MOST = 2**31 - 1

Check = Callable[[Any], Any]


def checked(fields: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """*fields* with those that *checks* names as these give them; one that is absent has a default.

    Raises ValueError, KeyError or TypeError.
    """
    return {name: checks[name](value) if name in checks else value for name, value in fields.items()}


def text(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


def whole(value: object) -> int:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool) or not -NUMBER_MOST <= value <= NUMBER_MOST:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def moment(value: object) -> float:
    """A time in Unix seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= TIME_MOST:
        raise TypeError(f"{value!r:.40} is no time")
    return float(value)


def texts(value: object) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is no list")
    return tuple(map(text, value))


def named_texts(value: object) -> dict[str, str]:
    """Strings by their names."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} is no object")
    return {text(name): text(content) for name, content in value.items()}


def process(value: Any) -> ProcessId:  # noqa: ANN401 - it is what is found out
    """A process."""
    pid, ticks = whole(value["pid"]), whole(value["start_ticks"])
    if not 0 < pid <= PID_MOST or ticks < 0:
        raise ValueError(f"no process has the number {pid} and the start {ticks}")
    return ProcessId(pid, ticks)


def isolation(value: Any) -> Isolation:  # noqa: ANN401
    """What stood between a command and the host."""
    return {
        "vmm": text(value["vmm"]),
        "accelerator": text(value["accelerator"]),
        "sandbox": list(texts(value["sandbox"])),
    }


def one_of(*known: str) -> Check:
    """One of the *known* words."""

    def check(value: object) -> str:
        if value not in known:
            raise ValueError(f"unknown: {value!r:.40}")
        return text(value)

    return check


def maybe(check: Check) -> Check:
    """What *check* takes, or nothing."""
    return lambda value: None if value is None else check(value)


# What a machine and a task have alike: what was asked for, and when.
ASKED_FOR: dict[str, Check] = {
    "environment": text,
    "environment_version": maybe(text),
    "vcpu_count": whole,
    "mem_mib": whole,
    "disk_mib": whole,
    "ttl_seconds": whole,
    "created_at": moment,
    "expires_at": moment,
    "allow_host_compat": flag,
}
