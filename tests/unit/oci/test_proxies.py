"""Registries that only a proxy reaches: their names are not known here, and nothing but the proxy is asked."""

import base64
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.oci_images import Member, image, layer, needs_registry, run
from tests.oci_server import serving
from tests.proxy_server import proxying

from pyro_mcp.environments import Installed
from pyro_mcp.errors import RegistryUnreachable

pytestmark = needs_registry
Install = Callable[..., Installed]
IMAGE = image(layer(Member("bin/tool", b"x" * 300_000, mode=0o755)))
HOST = "registry.example"
NAME = f"{HOST}/a/b:1"


@pytest.fixture(autouse=True)
def no_proxy_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of the registry, and its key."""
    place = tmp_path_factory.mktemp("tls")
    key, certificate = place / "key.pem", place / "cert.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST}"
    run("openssl", *words.split(), "-keyout", str(key), "-out", str(certificate))
    return certificate, key


def test_a_registry_with_tls_is_reached_by_a_tunnel(
    install: Install, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with serving(IMAGE, tls=context) as server, proxying(server.host) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        assert install(NAME).version == IMAGE.digest
        assert set(proxy.asked) == {("CONNECT", f"{HOST}:443")}
        assert all("authorization" not in headers for headers in proxy.headers_of)
        assert server.served[IMAGE.layers[0]] == len(IMAGE.blobs[IMAGE.layers[0]])


def test_a_registry_without_tls_is_asked_through_the_proxy(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(IMAGE) as server, proxying(server.host) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.address)  # without a scheme, as some write it
        install(NAME, PYRO_INSECURE_REGISTRIES=HOST)
        assert ("GET", f"http://{HOST}/v2/a/b/manifests/1") in proxy.asked


def test_the_login_in_the_address_of_a_proxy_is_shown_to_it(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    with serving(IMAGE) as server, proxying(server.host, login) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://me:p%40ss@{proxy.address}")
        install(NAME, PYRO_INSECURE_REGISTRIES=HOST)
        assert {headers.get("proxy-authorization") for headers in proxy.headers_of} == {login}


def test_a_proxy_that_refuses_is_told_apart_from_the_registry(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(IMAGE) as server, proxying(server.host, "Basic other") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:secret@{proxy.address}")
        with pytest.raises(RegistryUnreachable, match=f"the proxy does not let us to {HOST}") as caught:
            install(NAME)
        assert "secret" not in str(caught.value.as_dict())
        assert server.asked == []


def test_a_proxy_that_is_not_there_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:1 cannot be reached"):
        install(NAME)


def test_what_needs_no_proxy_is_asked_directly(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(IMAGE) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1,.internal")
        assert install(f"{server.host}/a/b:1").digest
