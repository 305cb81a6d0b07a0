"""What a machine's launcher is told about its network, compared with golden files (PYRO_UPDATE_GOLDEN=1 rewrites them).

The rulesets in it have golden files of their own (test_rules.py), so only their names stand here.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network import resolver, uplink, wiring
from pyro_mcp.network.pins import NO_PINS, Pins
from pyro_mcp.network.uplink import Uplink, one_line, pasta_plan, veth_plan
from pyro_mcp.paths import MachinePaths

GOLDEN = Path(__file__).parent / "golden"
MACHINE = "0123456789ab"
PATHS = MachinePaths(Path("/state/machines") / MACHINE)
LISTED = NetworkPolicy(mode="allow-list", hosts=("a.example",))
PINS = Pins({"a.example": ("1.1.1.1",)}, (("1.1.1.1", 443),))
GATE = (1881000001, 1881000001)


def way(kind: uplink.Kind) -> Uplink:
    return Uplink(kind, "/usr/sbin/nft", "/usr/bin/pasta", 1500, ("198.51.100.7",))


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What differs from host to host and from time to time."""
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(resolver.resolver_config, "__kwdefaults__", {"resolv_conf": tmp_path / "resolv.conf"})
    numbers = iter([0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    monkeypatch.setattr("secrets.randbelow", lambda _most: next(numbers))
    monkeypatch.setattr(uplink, "routed_addresses", lambda: frozenset({"198.18.2.2"}))


def plans(*, root: bool, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    gate = GATE if root else None
    found = {
        f"pasta-{'root' if root else 'user'}": wiring.connected(
            MACHINE, PATHS, NetworkPolicy(), NO_PINS, way("pasta"), gate=gate
        )
    }
    if root:
        found["veth"] = wiring.connected(MACHINE, PATHS, LISTED, PINS, way("veth"), gate=gate)
        found["template"] = wiring.unconnected(PATHS, way("veth"))
    return found


@pytest.mark.parametrize(
    ("name", "root"), [("veth", True), ("template", True), ("pasta-root", True), ("pasta-user", False)]
)
def test_the_plan_is_the_golden_one(name: str, monkeypatch: pytest.MonkeyPatch, *, root: bool) -> None:
    plan = plans(root=root, monkeypatch=monkeypatch)[name]
    plan["rules"] = [line.strip() for line in plan["rules"].splitlines() if "set host" in line or "set pinned" in line]
    for candidate in plan["uplink"]["candidates"]:
        candidate["host_rules"] = candidate["host_rules"][:60]
    text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
    golden = GOLDEN / f"wiring-{name}.json"
    if os.environ.get("PYRO_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_pasta_lets_nothing_in_and_shows_nothing_of_the_host() -> None:
    argv = pasta_plan(way("pasta"), PATHS.namespace)["argv"]
    for option in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert argv[argv.index(option) + 1] == "none", option
    assert {"--no-map-gw", "--ipv4-only", "--netns-only"} <= set(argv)
    assert argv[-1] == str(PATHS.namespace)


def test_an_address_that_leads_somewhere_is_not_a_candidate() -> None:
    addresses = [candidate["address"] for candidate in veth_plan(MACHINE)["candidates"]]
    assert addresses == ["198.18.1.1", "198.18.3.3", "198.18.4.4", "198.18.5.5"]


def test_a_ruleset_on_one_line_has_each_statement_ended() -> None:
    assert one_line("table inet x {\n\tflags owner;\n\tchain a {\n\t\tdrop\n\t}\n}\n") == (
        "table inet x { flags owner; chain a { drop; }; };"
    )


def test_no_two_machines_have_one_hardware_address_and_each_is_locally_administered() -> None:
    assert wiring.mac_of(MACHINE) == "060001234567"
    assert wiring.mac_of("1123456789ab") != wiring.mac_of(MACHINE)
