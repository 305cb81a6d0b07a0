"""Why a machine's network could not be made: what the step that tried says (agent/netns, agent/gate), as an error.

The step runs after all that can be looked at beforehand was there. What still fails is mostly the host's kernel, so the
remedies name its modules.
"""

from pyro_mcp.errors import NetworkUnavailable

RULES = (
    "Load what the rules need: sudo modprobe -a nf_tables nft_ct nft_connlimit nft_chain_nat nft_masq nft_reject_inet."
    " It takes Linux 5.13 and nftables 1.0.6."
)
# (what the step says, what is missing, what helps); the first that matches is told, the step's words follow as details.
KNOWN = (
    (
        "make a network namespace:",
        "this user may not make a network namespace",
        "Allow user namespaces (sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0), or run pyro as root.",
    ),
    ("the rules were refused:", "the host's kernel does not take the rules of the machine's network", RULES),
    ("uplink: the host's table:", "the host's kernel does not take the rules of the way out", RULES),
    ("/dev/net/tun:", "/dev/net/tun cannot be used", "Load the module: sudo modprobe tun"),
    ("uplink: veth:", "the pair of devices for the way out cannot be made", "Load the module: sudo modprobe veth"),
    ("pasta", "pasta does not make the way out", "Run `pyro setup`, or install the package passt anew."),
    ("nft:", "nft could not be run", "Run `pyro setup`, or install the package nftables anew."),
    ("no free address", "no address is free for the way out", "Delete machines that have a network."),
)


def network_fault(said: str) -> NetworkUnavailable:
    """The error for what the step *said*."""
    for words, cause, remedy in KNOWN:
        if words in said:
            return NetworkUnavailable(f"{cause}: {_first_line(said)}", remedy=remedy, details=said.splitlines())
    return NetworkUnavailable(
        f"the machine's network could not be made: {_first_line(said)}", details=said.splitlines()
    )


def _first_line(said: str) -> str:
    return next(iter(said.splitlines()), "")[:300]
