"""The frequency of the host's time-stamp counter, which a guest under software emulation sees unchanged."""

import platform
import re
from pathlib import Path
from typing import TypeGuard

from pyro_mcp.errors import HostFault
from pyro_mcp.host import facts, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths

FACT = "tsc"
MEASURE_SECONDS = 5.0
PLAUSIBLE_KHZ = (100_000, 20_000_000)


def tsc_khz(
    paths: Paths, agent_binary: Path, deadline: Deadline | None = None, *, machine: str = platform.machine()
) -> int | None:
    """The frequency in kHz, measured once per boot by ``pyro-agent tsc``; ``None`` where it cannot be had.

    A failed measurement is not remembered: the host may have been too busy. Never raises.
    """
    if machine != "x86_64":
        return None
    known = (facts.recall(paths, FACT) or {}).get("khz")
    if _plausible(known):
        return known
    patience = (deadline or Deadline.never()).sooner(MEASURE_SECONDS)
    try:
        output = proc.run([str(agent_binary), "tsc"], patience).stdout
    except HostFault:
        return None
    khz = parse(output)
    if khz is not None:
        facts.remember(paths, FACT, {"khz": khz})
    return khz


def parse(output: bytes) -> int | None:
    """The number in what ``pyro-agent tsc`` prints; ``None`` when it is not one that a processor has."""
    text = output.strip()
    khz = int(text) if re.fullmatch(rb"[0-9]{1,12}", text) else None
    return khz if _plausible(khz) else None


def _plausible(khz: object) -> TypeGuard[int]:
    low, high = PLAUSIBLE_KHZ
    return isinstance(khz, int) and not isinstance(khz, bool) and low <= khz <= high
