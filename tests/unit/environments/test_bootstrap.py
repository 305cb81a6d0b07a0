"""The bootstrap's plan keeps the host out of the image, and its failures name a cause and a remedy."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.environments.bootstrap import CLEANING, LOGIN, OWNERS, DebianBootstrap, guest_sources, packed_by, plan
from pyro_mcp.environments.catalog import lookup
from pyro_mcp.environments.diagnosis import failure
from pyro_mcp.environments.pipeline import Ended, Piped
from pyro_mcp.environments.source import require_space
from pyro_mcp.errors import EnvironmentFault, NoSpace, OperationFailed

SOURCES = [
    "deb [arch=amd64 signed-by=/usr/share/keyrings/host.gpg] http://user:secret@mirror.test/debian bookworm main",
    "deb [arch=amd64 signed-by=/usr/share/keyrings/host.gpg] http://mirror.test/debian-security bookworm-security main",
]
DONE = Ended(0, b"")


def hooks() -> list[str]:
    prefix = "--customize-hook="
    return [word.removeprefix(prefix) for word in plan(lookup("debian:12"), SOURCES) if word.startswith(prefix)]


def test_the_plan_reads() -> None:
    words = [word for word in plan(lookup("debian:12-build"), SOURCES, ["setpriv"]) if "-hook=" not in word]
    assert words == [
        "setpriv",
        "mmdebstrap",
        "--mode=auto",
        "--variant=minbase",
        "--format=tar",
        "--include=bash,coreutils,ca-certificates,git,gcc,libc6-dev,make,cmake,python3",
        '--aptopt=Acquire::Retries "3"',
        "bookworm",
        "-",
        "-",
    ]


def test_no_password_is_on_the_command_line() -> None:
    assert not [word for word in plan(lookup("debian:12"), SOURCES) if "secret" in word]


def test_the_image_belongs_to_root_and_its_root_directory_is_closed_to_writing() -> None:
    words = " ".join(packed_by(Path("/x/rootfs.squashfs")))
    assert "-root-mode 0755 -root-uid 0 -root-gid 0 /x/rootfs.squashfs" in words


def test_the_guest_gets_sources_without_passwords_and_without_files_of_the_host() -> None:
    assert guest_sources(SOURCES) == [
        "deb http://mirror.test/debian bookworm main",
        "deb http://mirror.test/debian-security bookworm-security main",
    ]


def debian_login(root: Path) -> None:
    """The lines of Debian's login shell that start programs, as they stand in base-files 12."""
    for directory in ("etc", "root"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    test = 'if [ "$(id -u)" -eq 0 ]; then\n  echo root\nelse\n  echo user\nfi\n'
    (root / "etc/profile").write_text(test)
    (root / "root/.profile").write_text("mesg n 2> /dev/null || true\n")


def test_the_login_shell_tells_root_from_others_without_a_program(tmp_path: Path) -> None:
    debian_login(tmp_path)
    for hook in LOGIN:
        subprocess.run(["sh", "-ec", hook, "exec", str(tmp_path)], check=True)
    script = f". {tmp_path}/etc/profile; . {tmp_path}/root/.profile"
    said = subprocess.run(["/bin/sh", "-c", script], env={"PATH": "/nowhere"}, check=True, capture_output=True)
    # The guest's root directory belongs to its root, as that of this host does.
    assert (said.stdout, said.stderr) == (b"root\n" if os.geteuid() == 0 else b"user\n", b"")


def test_the_hooks_replace_what_mmdebstrap_copied_from_the_host(tmp_path: Path) -> None:
    root = tmp_path / "the root"
    for directory in ("etc/apt/apt.conf.d", "etc/ssh", "var/lib/dbus"):
        (root / directory).mkdir(parents=True)
    debian_login(root)
    (root / "etc/hostname").write_text("secret-host\n")
    (root / "etc/hostname").chmod(0o600)
    (tmp_path / "resolver").write_text("nameserver 192.0.2.1\n")
    (root / "etc/resolv.conf").symlink_to(tmp_path / "resolver")
    (root / "etc/machine-id").write_text("0" * 32)
    for name in ("etc/ssh/ssh_host_rsa_key", "var/lib/dbus/machine-id", "etc/apt/apt.conf.d/99mmdebstrap"):
        (root / name).write_text("x")
    for hook in hooks():
        if hook != OWNERS:  # enters the root, which has no programs here
            subprocess.run(["sh", "-ec", hook, "exec", str(root)], check=True)
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if not path.is_dir()}
    assert {name: path.read_text() for name, path in found.items()} == {
        "etc/hostname": "pyro\n",
        "etc/hosts": "127.0.0.1\tlocalhost pyro\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        "etc/machine-id": "",
        "etc/resolv.conf": "",
        "etc/apt/sources.list": "".join(f"{line}\n" for line in guest_sources(SOURCES)),
        "etc/profile": "if [ -O / ]; then\n  echo root\nelse\n  echo user\nfi\n",
        "root/.profile": "[ ! -t 0 ] || mesg n 2> /dev/null || true\n",
    }
    assert {path.lstat().st_mode for path in found.values()} == {0o100644}
    assert (tmp_path / "resolver").read_text() == "nameserver 192.0.2.1\n"
    assert CLEANING in hooks()


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("E: unable to pick chroot mode automatically (use --mode for manual selection)", "user namespaces", "uidmap"),
        ("E: newuidmap 4711 0 100000 65536 failed: ", "user namespaces", "uidmap"),
        (
            "W: Failed to fetch http://mirror.test/x  Temporary failure resolving 'mirror.test'\nE: no Release file.",
            "cannot be reached",
            "PYRO_DEBIAN_MIRROR",
        ),
        ("E: Failed to fetch http://127.0.0.1:1/x  Unable to connect to 127.0.0.1:1:", "cannot be reached", "proxy"),
        ("W: GPG error: The following signatures couldn't be verified: NO_PUBKEY 0E98404D386FA1D9", "signature",
         "debian-archive-keyring"),
        ("E: Release file for http://mirror.test/InRelease is not valid yet (for another 3d)", "clock", "clock"),
        ("E: Unable to locate package cmake", "does not have", "PYRO_DEBIAN_MIRROR"),
        ("mount: /tmp/x/proc: permission denied.\nE: mmdebstrap failed to run", "does not allow", "SYS_ADMIN"),
        ("E: something new", "mmdebstrap ended with status 1: something new", "pyro env pull"),
    ],
)  # fmt: skip
def test_a_failed_bootstrap_has_a_cause_and_a_remedy(said: str, cause: str, remedy: str) -> None:
    error = failure("debian:12", Piped(Ended(1, said.encode()), DONE, 0), "/tmp")
    assert isinstance(error, EnvironmentFault)
    assert cause in str(error)
    assert remedy in error.remedy
    assert list(error.details) == said.splitlines()


@pytest.mark.parametrize(
    ("piped", "cause"),
    [
        (Piped(Ended(25, b"dpkg: error: No space left on device"), DONE, 0), "bootstrapping debian:12 in /tmp"),
        (Piped(Ended(25, b"E: Sub-process store received signal 25."), DONE, 0), "larger files"),
        (Piped(None, Ended(1, b"Write failed because No space left on device"), 9), "packing debian:12"),
        (Piped(None, Ended(-signal.SIGXFSZ, b""), 9), "larger files"),
        (Piped(None, Ended(1, b"Write failed because File too large"), 9), "larger files"),
    ],
)
def test_a_full_disk_is_told_as_one(piped: Piped, cause: str) -> None:
    error = failure("debian:12", piped, "/tmp")
    assert isinstance(error, NoSpace)
    assert cause in str(error)


def test_a_failed_packer_is_told_with_its_words() -> None:
    error = failure("debian:12", Piped(None, Ended(1, b"FATAL ERROR: bad tar header"), 9), "/tmp")
    assert isinstance(error, OperationFailed)
    assert str(error) == "cannot make debian:12: sqfstar ended with status 1: FATAL ERROR: bad tar header"


def test_the_producer_is_blamed_when_both_failed() -> None:
    error = failure("debian:12", Piped(Ended(1, b"E: Could not resolve host"), Ended(1, b"FATAL ERROR"), 0), "/tmp")
    assert "cannot be reached" in str(error)


def test_two_good_ends_are_no_failure() -> None:
    assert failure("debian:12", Piped(DONE, DONE, 1), "/tmp") is None


def test_passwords_in_urls_stay_out_of_the_evidence() -> None:
    said = b"E: Failed to fetch http://user:secret@mirror.test/x  Could not connect to mirror.test"
    error = failure("debian:12", Piped(Ended(1, said), DONE, 0), "/tmp")
    assert error is not None
    assert list(error.details) == ["E: Failed to fetch http://***@mirror.test/x  Could not connect to mirror.test"]
    assert "secret" not in str(error.as_dict())


def test_the_space_is_looked_at_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "debian:12")
    with pytest.raises(NoSpace, match=r"installing debian:12 needs about \d+ MiB on /") as caught:
        require_space(tmp_path, 1 << 40, "debian:12")
    assert "pyro env prune" in caught.value.remedy


def test_the_bootstrap_offers_the_whole_catalog() -> None:
    source = DebianBootstrap(load({}))
    assert all(source.offers(lookup(name)) for name in ("debian:12", "debian:12-base", "debian:12-build"))
