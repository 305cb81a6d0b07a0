"""``make pypi-publish``: twine against an index on loopback that speaks the upload protocol."""

import base64
import contextlib
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.group_environments import ROOT, programs_of
from tests.loopback import running

from pyro_mcp import __version__

TOKEN = "pypi-not-a-real-token"
METADATA = f"""\
Metadata-Version: 2.4
Name: pyro-mcp
Version: {__version__}
Summary: A stand-in
Description-Content-Type: text/markdown

# A stand-in
"""
WHEEL = f"pyro_mcp-{__version__}-py3-none-any.whl"
SDIST = f"pyro_mcp-{__version__}.tar.gz"
PUBLISH_SECONDS = 120.0


class Index(ThreadingHTTPServer):
    """Takes uploads, or answers all of them with *status*."""

    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.users: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/legacy/"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.users.append(base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode())
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def index(status: int = 200) -> Iterator[Index]:
    with running(Index(status)) as server:
        yield server


@pytest.fixture(scope="module")
def twine() -> Path:
    return programs_of("publish")


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """What ``make dist`` leaves, only small."""
    made = tmp_path / "dist"
    made.mkdir()
    with zipfile.ZipFile(made / WHEEL, "w") as wheel:
        wheel.writestr("pyro_mcp/runtime_bundle/NOTICE", "")
        information = f"pyro_mcp-{__version__}.dist-info"
        wheel.writestr(f"{information}/METADATA", METADATA)
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    with tarfile.open(made / SDIST, "w:gz") as sdist:
        for name, text in (("PKG-INFO", METADATA), ("README.md", "")):
            member = tarfile.TarInfo(f"pyro_mcp-{__version__}/{name}")
            member.size = len(text)
            sdist.addfile(member, io.BytesIO(text.encode()))
    return made


def publish(twine: Path, dist: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TWINE_", "PYPI_"))}
    env = {**kept, "PATH": f"{twine}:{kept['PATH']}", "PYRO_DIST_DIR": str(dist), **variables}
    script = str(ROOT / "scripts" / "pypi_publish.sh")
    return subprocess.run(
        [script],
        env=env,
        capture_output=True,
        text=True,
        timeout=PUBLISH_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_both_distributions_arrive_with_the_token(twine: Path, dist: Path) -> None:
    with index() as server:
        done = publish(twine, dist, TWINE_PASSWORD=TOKEN, PYPI_REPOSITORY_URL=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.users == [f"__token__:{TOKEN}"] * 2
    for name in (WHEEL, SDIST):
        (body,) = (body for body in server.bodies if f'filename="{name}"'.encode() in body)
        assert (dist / name).read_bytes() in body
    assert TOKEN not in done.stdout + done.stderr


def test_another_user_may_be_named(twine: Path, dist: Path) -> None:
    with index() as server:
        done = publish(twine, dist, TWINE_PASSWORD="x", TWINE_USERNAME="me", PYPI_REPOSITORY_URL=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(server.users) == {"me:x"}


def test_an_index_that_refuses_makes_it_fail(twine: Path, dist: Path) -> None:
    with index(403) as server:
        done = publish(twine, dist, TWINE_PASSWORD=TOKEN, PYPI_REPOSITORY_URL=server.url)
    assert done.returncode != 0
    assert len(server.bodies) == 1
    assert TOKEN not in done.stdout + done.stderr


def test_without_a_token_nothing_is_sent(twine: Path, dist: Path) -> None:
    with index() as server:
        done = publish(twine, dist, PYPI_REPOSITORY_URL=server.url)
    assert (done.returncode, server.bodies) == (1, [])
    assert "TWINE_PASSWORD" in done.stderr


def test_what_was_not_built_is_named(twine: Path, dist: Path) -> None:
    (dist / SDIST).unlink()
    done = publish(twine, dist, TWINE_PASSWORD=TOKEN, PYPI_REPOSITORY_URL="http://127.0.0.1:9/")
    assert done.returncode == 1
    assert f"{SDIST} is missing: run `make dist` first" in done.stderr


def test_a_wheel_without_the_runtime_is_not_published(twine: Path, dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL, "w") as wheel:
        wheel.writestr("pyro_mcp/__init__.py", "")
    done = publish(twine, dist, TWINE_PASSWORD=TOKEN, PYPI_REPOSITORY_URL="http://127.0.0.1:9/")
    assert done.returncode == 1
    assert "has no runtime inside" in done.stderr


def test_metadata_that_an_index_would_refuse_is_found_before_anything_is_sent(twine: Path, dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL, "w") as wheel:
        wheel.writestr("pyro_mcp/runtime_bundle/NOTICE", "")
        wheel.writestr(f"pyro_mcp-{__version__}.dist-info/METADATA", METADATA.replace("Metadata-Version", "X"))
    with index() as server:
        done = publish(twine, dist, TWINE_PASSWORD=TOKEN, PYPI_REPOSITORY_URL=server.url)
    assert done.returncode != 0
    assert server.bodies == []
