"""What pyro depends on: each with a lower and an upper bound, since one without broke a peer's every command."""

import tomllib

import pytest
from packaging.requirements import Requirement
from tests.group_environments import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [
    *PROJECT["project"]["dependencies"],
    *(one for group in PROJECT["dependency-groups"].values() for one in group),
    *PROJECT["build-system"]["requires"],
]


@pytest.mark.parametrize("text", DEPENDENCIES)
def test_every_dependency_has_both_bounds(text: str) -> None:
    operators = {one.operator for one in Requirement(text).specifier}
    assert operators == {">=", "<"}
