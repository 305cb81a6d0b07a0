"""What a user may say about the network, and what it means."""

from pathlib import Path

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.policy import HOSTS_MOST, host_and_ports, parse


def test_without_a_word_about_it_there_is_no_network() -> None:
    assert parse() is None
    assert parse(network=False, allow_hosts=[], allow_private=(), source=None) is None


def test_the_network_is_the_public_internet_unless_more_is_said() -> None:
    assert parse(network=True) == NetworkPolicy("public", (), ())


def test_one_allowed_host_makes_it_a_list_and_turns_the_network_on() -> None:
    assert parse(allow_hosts=["Git.Example.", "files.example:8443", "git.example"]) == NetworkPolicy(
        "allow-list", ("git.example", "files.example:8443"), ()
    )


def test_opened_ranges_are_merged() -> None:
    opened = parse(allow_private=["10.0.0.0/9", "10.128.0.0/9", "192.168.7.0/24", "192.168.7.5/32"])
    assert opened == NetworkPolicy("public", (), ("10.0.0.0/8", "192.168.7.0/24"))


def test_learning_takes_no_list() -> None:
    assert parse(source="learn") == NetworkPolicy("learn", (), ())
    with pytest.raises(InvalidRequest, match="takes no list"):
        parse(source="learn", allow_hosts=["git.example"])


@pytest.mark.parametrize(
    ("entry", "host", "ports"), [("a.example", "a.example", (80, 443)), ("10.0.0.1:22", "10.0.0.1", (22,))]
)
def test_a_host_without_a_port_means_the_ports_of_the_web(entry: str, host: str, ports: tuple[int, ...]) -> None:
    assert host_and_ports(entry) == (host, ports)


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", ":443", "a b", "*.example", "-a.example", "a..example", "https://git.example", "git.example/simple"),
        *("git.example:0", "git.example:65536", "git.example:", "git.example:http", "git.example:443:1", "a\0b"),
        *("127.1", "0x7f.1", "2130706433", "0x7f000001", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "a.example.0x1"),
        *(
            "::1",
            "[::1]:80",
            "2606:4700::1111",
            "git.example; accept",
            "x" * 64,
            ".".join(["abcdefg"] * 32),
            "g\u00fdt.example",
        ),
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(allow_hosts=[host])


@pytest.mark.parametrize(
    "network",
    [
        *(
            "",
            "10.0.0.1/8",
            "8.8.8.0/24",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "169.254.169.254/32",
            "224.0.0.0/4",
        ),
        *("fd00::/8", "::1/128", "10.0.0.0/33", "172.16.0.0/11", "100.100.100.200", "lan", "198.18.0.0/15"),
    ],
)
def test_what_is_not_private_cannot_be_opened(network: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(allow_private=[network])


def test_lists_are_bounded_and_are_lists() -> None:
    with pytest.raises(InvalidRequest, match="more than"):
        parse(allow_hosts=[f"h{n}.example" for n in range(HOSTS_MOST + 1)])
    with pytest.raises(InvalidRequest, match="list"):
        parse(allow_hosts="git.example")


def test_a_policy_file_has_the_two_lists(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('allow_hosts = ["git.example"]\nallow_private = ["192.168.7.0/24"]\n')
    assert parse(source=path) == NetworkPolicy("allow-list", ("git.example",), ("192.168.7.0/24",))
    assert parse(source=str(path), allow_hosts=["a.example"]) == NetworkPolicy(
        "allow-list", ("a.example", "git.example"), ("192.168.7.0/24",)
    )


def test_a_policy_file_with_an_empty_list_lets_nothing_out_and_one_without_is_public(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("allow_hosts = []\n")
    assert parse(source=path) == NetworkPolicy("allow-list", (), ())
    path.write_text('allow_private = ["10.0.0.0/8"]\n')
    assert parse(source=path) == NetworkPolicy("public", (), ("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("allow_host = []", "did you mean allow_hosts"),
        ("allow_hosts = 'git.example'", "must be a list"),
        ("allow_hosts = [1]", "list of texts"),
        ("allow_hosts = [", "not TOML"),
        ("\xff", "not TOML"),
        ("#" * 70_000, "larger than"),
        ('allow_hosts = ["*"]', "neither"),
    ],
)
def test_a_wrong_policy_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRequest, match=words):
        parse(source=path)


def test_a_policy_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "absent"), str(tmp_path), "a\0b"):
        with pytest.raises(InvalidRequest, match="cannot be"):
            parse(source=name)
