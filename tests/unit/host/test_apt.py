"""Apt works in a root of its own, on Debian's own sources, with its signatures checked."""

import shutil
from pathlib import Path

import pytest

from pyro_mcp.errors import EnvironmentFault, OperationFailed, ProgramFailed, ProgramMissing
from pyro_mcp.host import proc
from pyro_mcp.host.apt import Archive, Candidate, paragraphs, sources_for
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
ARCHIVE_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    return tmp_path / "apt"


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    path = tmp_path / "keyring.gpg"
    path.touch()
    return path


def test_deb822_sources_are_taken_with_their_keys(etc: Path, keyring: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(
        "# ours\nTypes: deb deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
        f"Components: main contrib\nSigned-By: {ARCHIVE_KEYS}\n\n"
        "Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n"
        f"Signed-By: {ARCHIVE_KEYS}\n"
    )
    options = f"[arch=amd64 signed-by={ARCHIVE_KEYS}]"
    assert sources_for(etc=etc, keyring=keyring) == [
        f"deb {options} http://mirror.test/debian bookworm main",
        f"deb {options} http://mirror.test/debian bookworm-updates main",
        f"deb {options} http://mirror.test/debian-security bookworm-security main",
    ]


def test_one_line_sources_get_debians_keyring(etc: Path, keyring: Path) -> None:
    (etc / "sources.list").write_text(
        "# deb http://old.test/debian bookworm main\n"
        "deb-src http://mirror.test/debian bookworm main\n"
        "deb http://mirror.test/debian bookworm main non-free-firmware # the archive\n"
        "deb [ trusted=yes allow-insecure=yes ] http://mirror.test/debian bookworm-updates main\n"
    )
    assert sources_for(etc=etc, keyring=keyring) == [
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.test/debian bookworm main",
        f"deb [arch=amd64 signed-by={keyring}] http://mirror.test/debian bookworm-updates main",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "deb http://mirror.test/debian trixie main",
        "deb http://mirror.test/debian bookworm-backports main",
        "deb http://mirror.test/debian bookworm contrib",
        "deb http://else.test/repository bookworm main",
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] http://else.test/debian bookworm main",
        f"deb [signed-by=/etc/vendor.gpg,{ARCHIVE_KEYS}] http://else.test/debian bookworm main",
    ],
)
def test_what_is_not_debian_bookworm_is_left_out(etc: Path, keyring: Path, line: str) -> None:
    (etc / "sources.list").write_text(f"{line}\n")
    with pytest.raises(EnvironmentFault, match="no Debian bookworm") as caught:
        sources_for(etc=etc, keyring=keyring)
    assert "PYRO_DEBIAN_MIRROR" in caught.value.remedy


@pytest.mark.parametrize("name", ["debian.sources.disabled", "debian.list~", "debian.conf"])
def test_files_that_apt_does_not_read_are_left_out(etc: Path, keyring: Path, name: str) -> None:
    (etc / "sources.list.d" / name).write_text("deb http://mirror.test/debian bookworm main\n")
    with pytest.raises(EnvironmentFault):
        sources_for(etc=etc, keyring=keyring)


def test_a_disabled_paragraph_is_left_out(etc: Path, keyring: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(
        "Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n"
    )
    with pytest.raises(EnvironmentFault):
        sources_for(etc=etc, keyring=keyring)


def test_a_key_inside_the_source_is_replaced_by_debians_keyring(etc: Path, keyring: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(
        "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    (line,) = sources_for(etc=etc, keyring=keyring)
    assert f"signed-by={keyring}]" in line


def test_a_host_without_apt_has_no_sources(tmp_path: Path, keyring: Path) -> None:
    with pytest.raises(EnvironmentFault):
        sources_for(etc=tmp_path / "nowhere", keyring=keyring)


def test_a_mirror_goes_before_the_hosts_sources(etc: Path, keyring: Path) -> None:
    (etc / "sources.list").write_text("deb http://mirror.test/debian bookworm main\n")
    assert sources_for(mirror="https://near.test/debian", etc=etc, keyring=keyring) == [
        f"deb [arch=amd64 signed-by={keyring}] https://near.test/debian bookworm main",
        f"deb [arch=amd64 signed-by={keyring}] https://near.test/debian bookworm-updates main",
    ]


@pytest.mark.parametrize("mirror", ["http://a.test/ b", "http://a.test/\ndeb", "http://a.test/[trusted=yes]"])
def test_a_mirror_that_is_more_than_a_url_is_refused(etc: Path, keyring: Path, mirror: str) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be the URL"):
        sources_for(mirror=mirror, etc=etc, keyring=keyring)


def test_without_the_keyring_its_package_is_named(etc: Path, tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing) as caught:
        sources_for(mirror="http://near.test/debian", etc=etc, keyring=tmp_path / "none.gpg")
    assert "debian-archive-keyring" in caught.value.remedy


def test_paragraphs_join_their_continuation_lines() -> None:
    assert list(paragraphs("A: 1\n# no\nB:\n 2\n\t3\n\n\nC: 4:5\n")) == [{"a": "1", "b": "\n2\n3"}, {"c": "4:5"}]


METADATA = "Package: linux-image-cloud-amd64\nVersion: 6.1.1-1\nSize: 12\nSHA256: " + "a" * 64 + "\n"


@pytest.mark.parametrize(
    ("depends", "image"),
    [
        ("linux-image-6.1.0-50-cloud-amd64 (= 6.1.1-1)", "linux-image-6.1.0-50-cloud-amd64"),
        ("base (>= 4), linux-image-6.1.0-50-cloud-amd64 | other", "linux-image-6.1.0-50-cloud-amd64"),
        ("kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool", None),
        ("linux-image-cloud-amd64", None),
        ("", None),
    ],
)
def test_a_metapackage_leads_to_its_kernel_image(depends: str, image: str | None) -> None:
    assert Candidate.parse(f"{METADATA}Depends: {depends}\n").kernel_image == image


@pytest.mark.parametrize("name", ["Package", "Version", "Size", "SHA256"])
def test_metadata_that_lacks_a_field_is_refused(name: str) -> None:
    lacking = "".join(f"{line}\n" for line in METADATA.splitlines() if not line.startswith(name))
    with pytest.raises(EnvironmentFault, match="not complete"):
        Candidate.parse(lacking)


def opened(directory: Path, *sources: str) -> Archive:
    return Archive.open(directory, sources, Deadline.after(60), Silent())


@needs_apt
def test_an_archive_without_a_signature_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "repository/dists/bookworm/main/binary-amd64"
    repository.mkdir(parents=True)
    (repository / "Packages").write_text(METADATA)
    (repository.parents[1] / "Release").write_text("Suite: bookworm\nCodename: bookworm\n")
    archive = opened(tmp_path / "root", f"deb [signed-by={ARCHIVE_KEYS}] file://{tmp_path}/repository bookworm main")
    with pytest.raises(ProgramFailed, match="is not signed") as caught:
        archive.update()
    assert "PYRO_DEBIAN_MIRROR" in caught.value.remedy


@needs_apt
def test_an_archive_that_is_not_there_is_a_failure_in_apts_words(tmp_path: Path) -> None:
    archive = opened(tmp_path / "root", f"deb [signed-by={ARCHIVE_KEYS}] file://{tmp_path}/nowhere bookworm main")
    with pytest.raises(ProgramFailed, match="package lists could not be fetched"):
        archive.update()


@needs_apt
@pytest.mark.parametrize("package", ["no-such-package", "--option", "a b", "../x", ""])
def test_an_unknown_package_is_a_failure(tmp_path: Path, package: str) -> None:
    with pytest.raises((ProgramFailed, EnvironmentFault)):
        opened(tmp_path / "root").newest(package)


@needs_apt
def test_the_hosts_configuration_is_honoured_but_not_its_holes_and_hooks(tmp_path: Path) -> None:
    host = tmp_path / "host.conf"
    host.write_text(
        'Acquire::http::Proxy "http://proxy.test:3128";\nAcquire::AllowInsecureRepositories "true";\n'
        'APT::Get::AllowUnauthenticated "true";\nAPT::Update::Post-Invoke { "false"; };\n'
        'APT::Default-Release "trixie";\n'
    )
    archive = opened(tmp_path / "root")
    argv = ["apt-config", f"--config-file={archive.directory / 'apt.conf'}", "dump"]
    settings = proc.run(argv, Deadline.after(30), env={"APT_CONFIG": str(host)}).stdout.decode()
    assert 'Acquire::http::Proxy "http://proxy.test:3128";' in settings
    assert 'Acquire::AllowInsecureRepositories "false";' in settings
    assert 'APT::Get::AllowUnauthenticated "false";' in settings
    assert f'Dir::State::lists "{tmp_path}/root/lists";' in settings
    assert "Post-Invoke::" not in settings
    assert "trixie" not in settings


def test_a_directory_whose_name_apt_cannot_quote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="cannot work in a directory of this name"):
        opened(tmp_path / 'a"b')
