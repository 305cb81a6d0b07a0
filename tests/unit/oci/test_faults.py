"""A registry that fails: each fault ends in a typed error with a remedy, or in success after another try."""

import base64
import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.oci_images import Member, directory, hard_link, image, layer, needs_registry, symlink
from tests.oci_server import Fault, Handler, challenge, first, serving, status
from tests.unit.oci.conftest import nothing_installed

from pyro_mcp.environments import Installed
from pyro_mcp.environments.oci.reference import Reference
from pyro_mcp.errors import ImageRefused, RegistryFault, RegistryUnreachable
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import Listener

pytestmark = needs_registry
Install = Callable[..., Installed]
NOISE = random.Random(6).randbytes(600_000)  # the same in every worker: its digest names tests
IMAGE = image(layer(directory("bin"), Member("bin/tool", NOISE, mode=0o755)), config={"Cmd": ["/bin/tool"]})
BIG = IMAGE.layers[0]


def test_an_image_is_pulled(install: Install, listener: Listener, paths: Paths) -> None:
    with serving(IMAGE) as server:
        found = install(f"{server.host}/a/b:1")
    assert found.version == IMAGE.digest
    assert found.source == f"oci://{server.host}/a/b@{IMAGE.digest}"
    assert found.config is not None
    assert found.config.command == ("/bin/tool",)
    assert not found.config.shell
    assert listener.phases == ["install", "resolve", "download", "flatten", "pack", "verify", "ready"]
    assert list(paths.blobs.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "cause", "remedy"),
    [
        (401, "wants a login", "docker login"),
        (403, "does not let you have", "Ask for access"),
        (404, "does not have", "Check the name"),
        (418, "status 418", "Check the name"),
        (500, "status 500", "Try again later"),
    ],
)
def test_a_refusal_has_a_cause_and_a_remedy(install: Install, paths: Paths, code: int, cause: str, remedy: str) -> None:
    with serving(IMAGE, status(code)) as server, pytest.raises(RegistryFault, match=cause) as caught:
        install(f"{server.host}/a/b:1")
    assert remedy in caught.value.remedy
    assert nothing_installed(paths)


@pytest.mark.parametrize("path", ["/manifests/", f"/blobs/{BIG}"])
@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(install: Install, path: str, code: int) -> None:
    with serving(IMAGE, first(2, status(code), path=path)) as server:
        assert install(f"{server.host}/a/b:1").digest


def test_the_wait_that_a_registry_asks_for_is_kept(install: Install) -> None:
    with serving(IMAGE, first(1, status(429, {"Retry-After": "1"}), path="/manifests/")) as server:
        began = time.monotonic()
        install(f"{server.host}/a/b:1")
    assert time.monotonic() - began >= 1


def test_a_wait_that_is_too_long_is_told(install: Install, paths: Paths) -> None:
    fault = status(429, {"Retry-After": "3600"})
    with serving(IMAGE, fault) as server, pytest.raises(RegistryFault, match="takes no more requests") as caught:
        install(f"{server.host}/a/b:1")
    assert "3600 seconds" in caught.value.remedy
    assert len(server.asked) <= 3
    assert nothing_installed(paths)


def cut_off(handler: Handler, _path: str) -> bool:
    """Half of the layer, then the end."""
    data = handler.server.image.blobs[BIG]
    handler.begin(200, len(data))
    handler.give(data[: len(data) // 2], BIG)
    handler.close_connection = True
    return True


def stall(handler: Handler, _path: str) -> bool:
    """Half of the layer, then silence."""
    data = handler.server.image.blobs[BIG]
    handler.begin(200, len(data))
    handler.give(data[: len(data) // 2], BIG)
    handler.server.released.wait(10)
    handler.close_connection = True
    return True


@pytest.mark.parametrize("fault", [cut_off, stall])
def test_a_broken_blob_goes_on_where_it_stopped(install: Install, fault: Fault) -> None:
    with serving(IMAGE, first(1, fault, path=BIG)) as server:
        install(f"{server.host}/a/b:1")
        assert server.served[BIG] == len(IMAGE.blobs[BIG])
        asked = [headers.get("range") for path, headers in server.headers_of if BIG in path]
    assert asked == [None, f"bytes={len(IMAGE.blobs[BIG]) // 2}-"]


def silent(handler: Handler, _path: str) -> bool:
    handler.server.released.wait(10)
    handler.close_connection = True
    return True


def test_a_registry_that_stays_silent_is_given_up(install: Install, paths: Paths) -> None:
    with serving(IMAGE, first(99, silent, path=BIG)) as server:
        with pytest.raises(RegistryUnreachable, match="stopped answering"):
            install(f"{server.host}/a/b:1")
        assert nothing_installed(paths)


def without_parts(handler: Handler, path: str) -> bool:
    if BIG not in path or "Range" not in handler.headers:
        return False
    handler.answer(200, handler.server.image.blobs[BIG])
    return True


def test_a_registry_that_does_no_parts_sends_all_again(install: Install) -> None:
    once = first(1, cut_off, path=BIG)
    with serving(IMAGE, lambda handler, path: once(handler, path) or without_parts(handler, path)) as server:
        assert install(f"{server.host}/a/b:1").digest


def changed(handler: Handler, path: str) -> bool:
    """The same length, other bytes."""
    data = bytearray(handler.server.image.blobs[path.rpartition("/")[2]])
    data[-1] ^= 1
    handler.answer(200, bytes(data))
    return True


def test_a_changed_layer_is_refused(install: Install, paths: Paths) -> None:
    with serving(IMAGE, first(99, changed, path=BIG)) as server:
        with pytest.raises(RegistryFault, match="differs from its digest") as caught:
            install(f"{server.host}/a/b:1")
        assert BIG in str(caught.value)
    assert nothing_installed(paths)


def test_a_changed_configuration_is_refused(install: Install, paths: Paths) -> None:
    config = json.loads(IMAGE.manifest)["config"]["digest"]
    with (
        serving(IMAGE, first(99, changed, path=config)) as server,
        pytest.raises(RegistryFault, match="differs from its digest"),
    ):
        install(f"{server.host}/a/b:1")
    assert nothing_installed(paths)


def test_a_manifest_that_is_not_the_one_asked_for_is_refused(install: Install, paths: Paths) -> None:
    with serving(IMAGE) as server, pytest.raises(RegistryFault, match="whose digest is"):
        install(f"{server.host}/a/b@sha256:{'0' * 64}")
    assert nothing_installed(paths)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"<html>", "is not JSON"),
        (b"[]", "no JSON object|not a JSON object"),
        (b'{"schemaVersion": 1}', "schema 1"),
        (b'{"schemaVersion": 2, "mediaType": "text/html"}', "no image manifest"),
        (b'{"schemaVersion": 2, "layers": []}', "no layers"),
        (IMAGE.manifest.replace(b"layer.v1.tar+gzip", b"chart.v1.tar+gzip"), "no layer of a root filesystem"),
        (b'{"schemaVersion": 2, "manifests": [{"platform": {"os": "linux", "architecture": "s390x"}}]}', "linux/s390x"),
        (b"{" * 100_000, "is not JSON"),
        (b" " * (5 << 20), "larger than"),
    ],
)
def test_what_is_no_image_for_this_platform_is_refused(install: Install, paths: Paths, body: bytes, cause: str) -> None:
    fault = first(99, status(200, {"Content-Type": "application/json"}, body=body), path="/manifests/")
    with serving(IMAGE, fault) as server, pytest.raises((ImageRefused, RegistryFault), match=cause) as caught:
        install(f"{server.host}/a/b:1")
    assert caught.value.remedy
    assert nothing_installed(paths)


def test_a_token_is_not_sent_to_the_host_of_a_redirect(install: Install) -> None:
    with serving(IMAGE) as elsewhere:

        def redirect(handler: Handler, path: str) -> bool:
            if path.startswith("/token"):
                handler.answer(200, b'{"token": "secret-token"}')
                return True
            header = f'Bearer realm="http://{handler.server.host}/token",service="s"'
            if challenge("secret-token", header)(handler, path):
                return True
            if BIG not in path:
                return False
            handler.answer(307, b"", {"Location": f"http://{elsewhere.host}{path}"})
            return True

        with serving(IMAGE, redirect) as server:
            install(f"{server.host}/a/b:1")
            mine = [headers for path, headers in server.headers_of if BIG in path]
        assert mine[-1]["authorization"] == "Bearer secret-token"
        assert [path for _, path in elsewhere.asked] == [f"/v2/a/b/blobs/{BIG}"]
        assert all("authorization" not in headers for _, headers in elsewhere.headers_of)


def test_credentials_go_to_the_token_server_and_only_for_a_registry_the_user_named(install: Install) -> None:
    seen: list[str | None] = []

    def fault(handler: Handler, path: str) -> bool:
        if path.startswith("/token"):
            seen.append(handler.headers.get("Authorization"))
            handler.answer(200, b'{"access_token": "t"}')
            return True
        return challenge("t", f'Bearer realm="http://{handler.server.host}/token",service="s",scope="x"')(handler, path)

    who = {"OCI_REGISTRY_USERNAME": "me", "OCI_REGISTRY_PASSWORD": "pw"}
    with serving(IMAGE, fault) as server:
        install(f"{server.host}/a/b:1", who)
        install(f"{server.host}/a/c:1", {**who, "OCI_REGISTRY_HOST": "elsewhere.example"})
        assert seen == ["Basic " + base64.b64encode(b"me:pw").decode(), None]


def test_a_mirror_does_not_get_the_login_for_the_registry(install: Install) -> None:
    who = {"OCI_REGISTRY_USERNAME": "me", "OCI_REGISTRY_PASSWORD": "pw"}
    closed = status(401, {"WWW-Authenticate": 'Basic realm="x"'})
    with serving(IMAGE, closed) as mirror, serving(IMAGE) as server:
        install(f"{server.host}/a/b:1", who, PYRO_REGISTRY_MIRRORS=f"{server.host}=http://{mirror.host}")
        assert mirror.asked
        assert all("authorization" not in headers for _, headers in mirror.headers_of)


def test_a_token_server_without_tls_is_not_taken_from_a_registry_with_it() -> None:
    from pyro_mcp.environments.oci.authority import Authority
    from pyro_mcp.environments.oci.transport import Transport, Tuning

    authority = Authority(Transport(Tuning()), None, plain=False)
    with pytest.raises(RegistryFault, match="not taken"):
        authority.answer('Bearer realm="http://evil.example/t"', "s", "https://r.example/", Deadline.never(), used={})


def test_a_redirect_without_an_end_is_refused(install: Install) -> None:
    def around(handler: Handler, path: str) -> bool:
        handler.answer(302, b"", {"Location": path})
        return True

    fault = first(99, around, path="/manifests/")
    with serving(IMAGE, fault) as server, pytest.raises(RegistryFault, match="again and again"):
        install(f"{server.host}/a/b:1")


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x/y", "//[", ""])
def test_a_redirect_to_nowhere_is_refused(install: Install, place: str) -> None:
    fault = first(99, status(302, {"Location": place}), path=BIG)
    with serving(IMAGE, fault) as server, pytest.raises(RegistryFault):
        install(f"{server.host}/a/b:1")


def test_a_bomb_is_refused_before_it_fills_the_disk(install: Install, paths: Paths) -> None:
    bomb = image(layer(Member("zeros", bytes(300 << 20))))
    with serving(bomb) as server, pytest.raises(ImageRefused, match="unpacks to more than 64 MiB") as caught:
        install(f"{server.host}/a/b:1", PYRO_IMAGE_MAX_MIB="64")
    assert "PYRO_IMAGE_MAX_MIB" in caught.value.remedy
    assert nothing_installed(paths)


TRICKS = {
    "leads upwards": layer(Member("../../etc/passwd", b"x")),
    "hosts.* leads upwards": layer(hard_link("a", "../../../etc/hosts")),
    "hard link to .*missing": layer(hard_link("a", "etc/nothing")),
    "hard link to a directory": layer(directory("d"), hard_link("a", "d")),
    "below something that is no directory": layer(Member("a", b"x"), Member("a/b", b"y")),
    "too long": layer(Member("a" * 300)),
    "of nothing that can be named": layer(Member(".wh...")),
    "below a whiteout": layer(Member(".wh.a/b")),
    "of a kind that is not known": layer(Member("a", kind=b"M")),
}


@pytest.mark.parametrize("reason", TRICKS)
def test_a_layer_with_tricks_is_refused_by_name(install: Install, paths: Paths, reason: str) -> None:
    with serving(image(TRICKS[reason])) as server, pytest.raises(ImageRefused, match=reason):
        install(f"{server.host}/a/b:1")
    assert nothing_installed(paths)


def test_a_link_out_of_the_image_writes_nothing_outside(install: Install, tmp_path: Path) -> None:
    trick = layer(symlink("out", str(tmp_path)), Member("out/written", b"x"))
    with serving(image(trick)) as server:
        found = install(f"{server.host}/a/b:1")
    assert not (tmp_path / "written").exists()
    listing = subprocess.run(["unsquashfs", "-l", str(found.rootfs)], capture_output=True, check=True).stdout
    assert f"squashfs-root{tmp_path}/written".encode() in listing


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"no tar at all" * 100, "no tar archive"),
        (gzip.compress(layer(Member("a", NOISE)))[:-50_000], "cannot be unpacked|cut off"),
        (layer(Member("a", NOISE))[:-300_000], "cut off"),
        (b"BZh91AY" + NOISE, "bzip2"),
        (b"\x28\xb5\x2f\xfd" + NOISE[:1000], "cannot be unpacked"),
        (b"", "no tar archive"),
    ],
)
def test_a_damaged_layer_is_refused(install: Install, paths: Paths, stored: bytes, reason: str) -> None:
    with serving(image(stored, compress=False)) as server, pytest.raises(ImageRefused, match=reason):
        install(f"{server.host}/a/b:1")
    assert nothing_installed(paths)


PULLER = """
import sys
from pyro_mcp.config import load
from pyro_mcp.environments import Environments
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
Environments(Paths.of_user(), load()).pull(sys.argv[1], progress=Silent(), deadline=Deadline.never())
"""


def test_a_killed_pull_goes_on_at_the_byte_where_it_stopped(install: Install, paths: Paths) -> None:
    data = IMAGE.blobs[BIG]
    half = len(data) // 2
    with serving(IMAGE, first(1, stall, path=BIG)) as server:
        name = f"{server.host}/a/b:1"
        with subprocess.Popen([sys.executable, "-c", PULLER, name], stderr=subprocess.DEVNULL) as process:
            try:
                partial = paths.blobs / f".partial-{BIG.replace(':', '-')}"
                assert until(lambda: partial.exists() and partial.stat().st_size == half, Deadline.after(20))
            finally:
                process.kill()
        server.released.set()
        install(name)
        assert server.served[BIG] == len(data)
        assert [headers.get("range") for path, headers in server.headers_of if BIG in path] == [None, f"bytes={half}-"]


def test_a_part_on_the_disk_that_is_wrong_is_fetched_again(install: Install, paths: Paths) -> None:
    paths.blobs.mkdir(parents=True, mode=0o700)
    (paths.blobs / f".partial-{BIG.replace(':', '-')}").write_bytes(b"wrong" * 100)
    with serving(IMAGE) as server:
        assert install(f"{server.host}/a/b:1").digest


def test_a_mirror_is_asked_first_and_the_registry_when_it_fails(install: Install, listener: Listener) -> None:
    with serving(IMAGE, status(404)) as mirror, serving(IMAGE) as server:
        install(f"{server.host}/a/b:1", PYRO_REGISTRY_MIRRORS=f"{server.host}=http://{mirror.host}/mirrored")
        assert "/v2/mirrored/a/b/manifests/1" in [path for _, path in mirror.asked]
        assert any(mirror.host in note and "trying" in note for note in listener.notes)


def test_a_mirror_that_has_the_image_spares_the_registry(install: Install) -> None:
    with serving(IMAGE) as mirror, serving(IMAGE) as server:
        found = install(f"{server.host}/a/b:1", PYRO_REGISTRY_MIRRORS=f"{server.host}=http://{mirror.host}")
        assert found.source.startswith(f"oci://{server.host}/a/b@")
        assert server.asked == []


def test_an_image_whose_signature_is_refused_is_not_installed(install: Install, paths: Paths) -> None:
    class Nobody:
        def check(self, reference: Reference, digest: str) -> None:
            raise ImageRefused(f"nobody signed {reference.name} as {digest}")

    with serving(IMAGE) as server, pytest.raises(ImageRefused, match=f"nobody signed .* as {IMAGE.digest}"):
        install(f"{server.host}/a/b:1", signatures=Nobody())
    assert nothing_installed(paths)
    assert BIG not in server.served


def test_a_tag_stays_pinned_until_it_is_moved(install: Install, paths: Paths) -> None:
    other = image(layer(Member("new", b"x")))
    with serving(IMAGE) as server:
        name = f"{server.host}/a/b:1"
        install(name)
        for path in (*paths.installed.iterdir(),):
            (path / "environment.json").unlink()
        server.image = other
        with pytest.raises(RegistryFault, match="whose digest is"):
            install(name)
        assert server.asked[-1] == ("GET", f"/v2/a/b/manifests/{IMAGE.digest}")


def test_an_unreachable_registry_is_named_within_the_connect_time(install: Install) -> None:
    began = time.monotonic()
    with pytest.raises(RegistryUnreachable, match="cannot be reached"):
        install("127.0.0.1:1/a/b:1")
    assert time.monotonic() - began < 5
