"""The catalog answers to its names only, and helps with the others."""

import pytest

from pyro_mcp import __version__
from pyro_mcp.environments.catalog import CATALOG, CATALOG_VERSION, lookup
from pyro_mcp.errors import InvalidRequest, UnknownEnvironment


def test_the_catalog_has_the_three_environments_of_the_contract() -> None:
    assert __version__ == CATALOG_VERSION
    assert {entry.name: (entry.packages, f"{entry.oci.repository}:{entry.oci.reference}") for entry in CATALOG} == {
        "debian:12": (("bash", "coreutils", "git"), "library/buildpack-deps:bookworm-scm"),
        "debian:12-base": (("bash", "coreutils"), "library/debian:bookworm-slim"),
        "debian:12-build": (
            ("bash", "coreutils", "git", "gcc", "make", "cmake", "python3"),
            "library/buildpack-deps:bookworm",
        ),
    }


def test_every_promised_package_is_installed_by_the_bootstrap() -> None:
    assert all(set(entry.packages) <= set(entry.include) for entry in CATALOG)


def test_names_give_different_directories() -> None:
    assert [entry.directory_name for entry in CATALOG] == [
        "debian_12-1.0.0",
        "debian_12-base-1.0.0",
        "debian_12-build-1.0.0",
    ]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("debain:12", "debian:12"),
        ("debian12", "debian:12"),
        ("debian:12-bild", "debian:12-build"),
        ("debian:12base", "debian:12-base"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(asked: str, meant: str) -> None:
    with pytest.raises(UnknownEnvironment) as caught:
        lookup(asked)
    assert str(caught.value) == f"unknown environment '{asked}'; did you mean {meant}?"


def test_a_far_name_gets_no_hint() -> None:
    with pytest.raises(UnknownEnvironment) as caught:
        lookup("alpine")
    assert str(caught.value) == "unknown environment 'alpine'"
    assert "pyro env list" in caught.value.remedy


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../debian:12", "/debian:12", "debian:12/", "debian:12\n", "debian:12 ", "-debian", "Debian:12",
     "debian::12", "debian:", "a//b", "a/../b", "debian:12\0", "debian:\u0661\u0662", "x" * 256, "$(id)", "--help"],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        lookup(name)
    assert not isinstance(caught.value, UnknownEnvironment)
    assert len(str(caught.value)) < 200


def test_every_environment_can_check_certificates() -> None:
    assert all("ca-certificates" in entry.include for entry in CATALOG)
