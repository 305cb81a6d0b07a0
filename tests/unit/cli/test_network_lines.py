"""What a run and a task's status say about the network, for people."""

from typing import Any

import pytest

from pyro_mcp.cli.network import NAMES_SHOWN, network_lines
from pyro_mcp.model import NetworkReport
from pyro_mcp.network.counters import GATE_LOST


def report(**changed: Any) -> NetworkReport:  # noqa: ANN401 - any field
    quiet: dict[str, Any] = {
        "policy": "allow-list", "allow_hosts": [], "allow_private": [], "problem": "", "denied": {},
        "refused_names": [], "learned": None,
    }  # fmt: skip
    return NetworkReport(**{**quiet, **changed})  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("network", "lines"),
    [
        (None, []),
        (report(), []),
        (report(denied=None), []),
        (report(denied={"private": 2, "name": 1}), ["policy=allow-list denied packets: private=2 name=1"]),
        (report(problem=GATE_LOST), [f"lost: {GATE_LOST}"]),
        (
            report(learned=["a.example:443", "8.8.8.8:53"]),
            ["learned: --allow-host a.example:443 --allow-host 8.8.8.8:53"],
        ),
        (report(learned=[]), ["learned: nothing was reached; no network is needed"]),
        (report(refused_names=["a.example"]), ["names that are not on the allow-list: a.example"]),
    ],
)
def test_what_is_worth_a_line_has_one(network: NetworkReport | None, lines: list[str]) -> None:
    assert list(network_lines(network)) == lines


def test_a_guest_that_asks_for_many_names_does_not_fill_the_screen() -> None:
    (line,) = network_lines(report(refused_names=[f"n{number}.example" for number in range(64)]))
    assert line.count(".example") == NAMES_SHOWN
    assert line.endswith(f"and {64 - NAMES_SHOWN} more")
