"""The certificate authorities of the site: certificates leave the file, and nothing else."""

import subprocess
from pathlib import Path

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.network.authorities import AUTHORITIES_BYTES_MOST, FILE_BYTES_MOST, read_authorities


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate and its key."""
    place = tmp_path_factory.mktemp("authority")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=site -keyout key -out pem"
    subprocess.run(["openssl", *words.split()], cwd=place, check=True, capture_output=True)
    return (place / "pem").read_text(), (place / "key").read_text()


def test_without_a_file_there_are_none() -> None:
    assert read_authorities("") == ""


def test_a_private_key_that_stands_in_the_file_stays_on_the_host(tmp_path: Path, certificate: tuple[str, str]) -> None:
    pem, key = certificate
    file = tmp_path / "all.pem"
    file.write_text(f"a remark\n{key}{pem}{pem.strip()}")
    assert read_authorities(str(file)) == pem * 2


@pytest.mark.parametrize(
    "content",
    ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["nothing", "text", "no certificate in it"],
)
def test_a_file_without_a_certificate_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.pem"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match="no certificate that can be used") as caught:
        read_authorities(str(file))
    assert "PYRO_CA_FILE" in caught.value.remedy


@pytest.mark.parametrize("name", ["none.pem", ".", "~nobody-of-this-name/x", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_authorities(name if name.startswith("~") else f"{tmp_path}/{name}")


def test_a_file_of_all_the_worlds_authorities_is_refused(tmp_path: Path, certificate: tuple[str, str]) -> None:
    pem, _ = certificate
    many, big = tmp_path / "many.pem", tmp_path / "big.pem"
    many.write_text(pem * (AUTHORITIES_BYTES_MOST // len(pem) + 1))
    big.write_text(pem + "x" * FILE_BYTES_MOST)
    for file in (many, big):
        with pytest.raises(InvalidRequest, match="more than"):
            read_authorities(str(file))
