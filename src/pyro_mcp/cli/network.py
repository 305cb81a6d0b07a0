"""The network of a machine in a few lines."""

from collections.abc import Iterator

from pyro_mcp.model import NetworkReport

NAMES_SHOWN = 8


def network_lines(network: NetworkReport | None) -> Iterator[str]:
    """Its policy with what was denied, if anything was; and the allow-list that was learned."""
    if network is None:
        return
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
