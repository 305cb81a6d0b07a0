"""The network of a machine in a few lines."""

from collections.abc import Iterator

from pyro_mcp.model import NetworkReport

NAMES_SHOWN = 8


def network_lines(network: NetworkReport | None) -> Iterator[str]:
    """Whether it was lost; its policy with what was denied, if anything was; the allow-list that was learned."""
    if network is None:
        return
    if network["problem"]:
        yield f"lost: {network['problem']}"
    denied = " ".join(f"{kind}={count}" for kind, count in (network["denied"] or {}).items())
    if denied:
        yield f"policy={network['policy']} denied packets: {denied}"
    names = network["refused_names"]
    if names:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        yield f"names that are not on the allow-list: {' '.join(names[:NAMES_SHOWN])}{more}"
    if network["learned"] is not None:
        hosts = " ".join(f"--allow-host {host}" for host in network["learned"])
        yield f"learned: {hosts or 'nothing was reached; no network is needed'}"
