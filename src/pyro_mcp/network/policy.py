"""What the user says about the network, as a policy: flags, parameters and files are checked here and nowhere else."""

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import NetworkPolicy, check_path, check_words
from pyro_mcp.network.ranges import METADATA, OPENABLE, collapsed

LEARN = "learn"
WEB_PORTS = (80, 443)
HOSTS_MOST = 256
PRIVATE_MOST = 64
FILE_BYTES_MOST = 64 * 1024
FILE_KEYS = ("allow_hosts", "allow_private")
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
HOST_NAME_MOST = 253  # RFC 1035, without the last dot
PORT = re.compile(r"[1-9][0-9]{0,4}")
EXAMPLE = "For instance: --allow-host git.example --allow-host files.example:8443"


def parse(
    *,
    network: bool = False,
    allow_hosts: Sequence[str] = (),
    allow_private: Sequence[str] = (),
    source: str | Path | None = None,
) -> NetworkPolicy | None:
    """The policy that was asked for, ``None`` when no network was. Raises InvalidRequest.

    *allow_hosts*, *allow_private* and *source* (``learn``, or a policy file) each ask for a network.
    """
    learn = str(source) == LEARN
    hosts, private = _words("allow_hosts", allow_hosts), _words("allow_private", allow_private)
    listed = bool(hosts)
    if source is not None and not learn:
        file = _file(check_path("network_policy", source))
        listed = listed or FILE_KEYS[0] in file  # an empty list lets nothing out
        hosts += file.get(FILE_KEYS[0], [])
        private += file.get(FILE_KEYS[1], [])
    elif not (network or hosts or private or learn):
        return None
    if learn and hosts:
        raise InvalidRequest(
            "learning finds out which hosts are needed; it takes no list of them",
            remedy="Leave out --allow-host, or --network-policy learn.",
        )
    return NetworkPolicy(
        mode="learn" if learn else "allow-list" if listed else "public",
        hosts=_bounded("allow_hosts", (_host(text) for text in hosts), HOSTS_MOST),
        private=tuple(collapsed(_bounded("allow_private", (_range(text) for text in private), PRIVATE_MOST))),
    )


def host_and_ports(entry: str) -> tuple[str, tuple[int, ...]]:
    """The name or address of an entry of ``NetworkPolicy.hosts``, and its ports."""
    host, _, port = entry.partition(":")
    return host, (int(port),) if port else WEB_PORTS


def address_in(host: str) -> IPv4Address | None:
    """*host* as an address, ``None`` when it is a name."""
    try:
        return IPv4Address(host)
    except AddressValueError:
        return None


def _host(text: str) -> str:
    """One entry, in lower case and without the root's dot."""
    host, colon, port = text.strip().partition(":")
    host = host.removesuffix(".").lower()
    if _is_ipv6(text.strip().strip("[]")) or text.startswith("["):
        raise InvalidRequest(f"allowed host {text!r:.80} is IPv6, which guests do not have", remedy=EXAMPLE)
    if colon and not (PORT.fullmatch(port) and int(port) <= 65535):
        raise InvalidRequest(f"the port of allowed host {text!r:.80} must be between 1 and 65535", remedy=EXAMPLE)
    known = HOST_NAME.fullmatch(host) and len(host) <= HOST_NAME_MOST
    # What ends in a number is an address to many programs, in forms of old: 127.1, 0x7f.1, 2130706433.
    numeric = re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2])
    if not known or (numeric and address_in(host) is None):
        raise InvalidRequest(f"allowed host {text!r:.80} is neither a host name nor an IPv4 address", remedy=EXAMPLE)
    return f"{host}:{int(port)}" if colon else host


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _range(text: str) -> str:
    """One range that is to be opened; only what is private can be."""
    try:
        network = IPv4Network(text.strip())
    except ValueError as error:
        raise InvalidRequest(
            f"allowed range {text!r:.80} is not an IPv4 network", remedy="For instance: --allow-private 192.168.7.0/24"
        ) from error
    if not any(network.subnet_of(private) for private in OPENABLE):
        raise InvalidRequest(
            f"{network} is not a private range",
            remedy=f"Only parts of {', '.join(map(str, OPENABLE))} can be opened; public addresses are open anyway.",
        )
    if any(network == metadata for metadata in METADATA):
        raise InvalidRequest(f"{network} is a metadata service, which stays closed")
    return str(network)


def _words(name: str, values: Sequence[str]) -> list[str]:
    return list(check_words(name, values))


def _bounded(name: str, values: Iterable[str], most: int) -> tuple[str, ...]:
    """*values* without repetitions."""
    found = tuple(dict.fromkeys(values))
    if len(found) > most:
        raise InvalidRequest(f"{name} has more than {most} entries")
    return found


def _file(path: Path) -> dict[str, list[str]]:
    """The lists of a policy file, which is TOML."""
    name = f"the network policy {str(path)!r:.200}"
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(FILE_BYTES_MOST + 1)
    except (OSError, RuntimeError, ValueError) as error:  # the latter two: no such home, a NUL in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"{name} cannot be read: {cause}", remedy="Name a policy file, or `learn`.") from error
    if len(data) > FILE_BYTES_MOST:
        raise InvalidRequest(f"{name} is larger than {FILE_BYTES_MOST} bytes")
    try:
        import tomllib  # only who has a file waits for it

        values: dict[str, Any] = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        remedy = 'For instance: allow_hosts = ["git.example"]'
        raise InvalidRequest(f"{name} is not TOML: {error}", remedy=remedy) from error
    for key, value in values.items():
        if key not in FILE_KEYS:
            import difflib

            near = difflib.get_close_matches(key, FILE_KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InvalidRequest(f"{name} has an unknown key {key!r:.80}{hint}")
        if not isinstance(value, list):
            raise InvalidRequest(f"{key} of {name} must be a list")
    return {key: _words(key, value) for key, value in values.items()}
