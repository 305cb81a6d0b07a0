"""Names of images: one normal form each, and nothing that is not one."""

import pytest

from pyro_mcp.environments.oci.endpoint import endpoints
from pyro_mcp.environments.oci.names import image_entry
from pyro_mcp.environments.oci.reference import names_a_registry, parse
from pyro_mcp.errors import InvalidRequest

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("docker.io/library/debian:12", "docker.io/library/debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/me/x:1", "docker.io/me/x:1"),
        ("registry-1.docker.io/library/a_b__c-d--e.f", "docker.io/library/a_b__c-d--e.f:latest"),
        (f"ghcr.io/o/n@{DIGEST}", f"ghcr.io/o/n@{DIGEST}"),
        (f"ghcr.io/o/n:tag@{DIGEST}", f"ghcr.io/o/n@{DIGEST}"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost/x:Tag_1.2-3", "localhost/x:Tag_1.2-3"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("GHCR.io/o/n", "ghcr.io/o/n:latest"),
    ],
)
def test_a_name_has_one_normal_form(text: str, name: str) -> None:
    assert parse(text).name == name
    assert parse(name).name == name


@pytest.mark.parametrize(
    "text",
    ["", "debian:12", "library/debian", "docker.io/", "docker.io/Upper", "docker.io/a//b", "docker.io/../x", "a.b/c:",
     "a.b/c:-x", "a.b/c@sha256:short", f"a.b/c@sha512:{'a' * 128}", "a.b:0/c", "a.b:70000/c", "-a.b/c", "a.b/c d",
     "http://a.b/c", "user@a.b/c", "a..b/c", "a.b/c:" + "x" * 129, "a.b/" + "c" * 300, "a.b/c\n", "a.b/c\0",
     "a.b:٣/c"],
)  # fmt: skip
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert caught.value.remedy
    assert len(str(caught.value)) < 300


def test_short_names_are_not_names_of_a_registry() -> None:
    assert not any(map(names_a_registry, ("debian:12", "python:3.12", "library/x", "../etc", "./x", ".x/y")))
    assert all(map(names_a_registry, ("docker.io/x", "localhost/x", "h:1/x")))


def test_every_name_has_a_directory_of_its_own_and_none_leads_elsewhere() -> None:
    names = ("a.b/c_d:e", "a.b/c/d:e", f"a.b/c@{DIGEST}", "a.b/c:" + "x" * 128)
    found = [image_entry(name).directory_name for name in names]
    assert len(set(found)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in found)


def test_mirrors_come_first_and_only_for_their_registry() -> None:
    found = endpoints("docker.io", "docker.io=http://m.example:5000/hub, ghcr.io=other.example", [])
    assert [(server.host, server.plain, server.repository("library/x")) for server in found] == [
        ("m.example:5000", True, "hub/library/x"),
        ("registry-1.docker.io", False, "library/x"),
    ]
    with pytest.raises(InvalidRequest, match="REGISTRY=HOST"):
        endpoints("docker.io", "nonsense", [])


@pytest.mark.parametrize(
    ("registry", "plain"),
    [("localhost:5000", True), ("127.0.0.1:1", True), ("127.9.9.9", True), ("[::1]:5000", True), ("ghcr.io", False),
     ("in.example", True), ("localhost.example", False), ("127.0.0.1.example", False)],
)  # fmt: skip
def test_tls_may_be_missing_on_this_host_and_where_the_user_says_so(registry: str, plain: bool) -> None:  # noqa: FBT001 - a column
    assert endpoints(registry, "", ["in.example"])[-1].plain is plain
