"""What people do on a network, with the programs they do it with: curl, apt, git and pip, with TLS and by a proxy."""

import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import TEST_CACHE
from tests.network_world import PROXY_PORT

from pyro_mcp.host.apt import Archive, sources_for
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent

from .network_host import KINDS, ONLY_ROOT, Host, world_of

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("home"), ONLY_ROOT]
FETCH_SECONDS = 200.0
# What debian:12 lacks of curl and Python; pip comes as the wheel that Debian's venv module has.
PACKAGES = (
    "curl", "libcurl4", "python3", "python3-minimal", "python3.11", "python3.11-minimal", "libpython3-stdlib",
    "libpython3.11-stdlib", "libpython3.11-minimal", "libsqlite3-0", "media-types", "libreadline8", "readline-common",
    "libncursesw6", "libnsl2", "libtirpc3", "libtirpc-common", "python3-pip-whl",
)  # fmt: skip
APT = """
set -e
echo 'deb [trusted=yes] http://packages.example/debian ./' > /etc/apt/sources.list
apt-get -q update
apt-get -q -y install --no-install-recommends curl python3 python3-pip-whl
"""
CLIENTS = """
set -e
curl -sS --fail https://example.com/
git clone -q https://git.example/project.git /clone
cat /clone/README
python3 -c 'import urllib.request; print(urllib.request.urlopen("https://example.com/").read().decode(), end="")'
pip=$(echo /usr/share/python-wheels/pip-*.whl)
python3 $pip/pip install -q --disable-pip-version-check --index-url https://index.example/simple --target /t greeting
PYTHONPATH=/t python3 -m greeting
openssl s_client -connect example.com:443 -verify_return_error -brief </dev/null 2>&1 | grep Verification
"""
SAID = ["this is 93.184.216.34", "a project", "this is 93.184.216.34", "hello from a wheel", "Verification: OK"]
SEEN_BY_APT = ("packages.example:80",)
SEEN_BY_THE_OTHERS = ("example.com:443", "git.example:443", "index.example:443")


def allowing(*hosts: str) -> list[str]:
    return [word for host in hosts for word in ("--allow-host", host)]


@pytest.fixture
def veth(tmp_path: Path) -> Iterator[Host]:
    with world_of("veth", tmp_path) as found:
        yield found


def packages() -> Path:
    """The packages, from the archive this host's apt has; kept from session to session."""
    kept = TEST_CACHE / "packages"
    if not kept.exists():
        partial = kept.with_name("packages.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "debs").mkdir(parents=True)
        archive = Archive.open(partial / "apt", sources_for(), Deadline.after(FETCH_SECONDS), Silent())
        archive.update()
        for name in PACKAGES:
            archive.download(name, partial / "debs")
        (partial / "debs").rename(kept)
        shutil.rmtree(partial)
    return kept


def add_packages(site: Path) -> None:
    """A flat repository, as apt takes it."""
    place = site / "debian"
    shutil.copytree(packages(), place)
    index = []
    for deb in sorted(place.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        index.append(f"{control.strip()}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    text = "\n".join(index)
    (place / "Packages").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    date = subprocess.run(["date", "-uR"], check=True, capture_output=True, text=True).stdout
    (place / "Release").write_text(f"Date: {date}SHA256:\n {digest} {len(text.encode())} Packages\n")


def add_project(site: Path) -> None:
    """A repository, as git serves it from plain files."""
    work, bare = site / "work", site / "project.git"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    me = ["-c", "user.name=test", "-c", "user.email=test@example"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True, env=env)
    (work / "README").write_text("a project\n")
    for words in (["add", "README"], [*me, "commit", "-q", "-m", "first"], ["clone", "-q", "--bare", ".", str(bare)]):
        subprocess.run(["git", *words], cwd=work, check=True, env=env)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True, env=env)


def add_wheel(site: Path) -> None:
    """An index with one wheel, as pip takes it (PEP 503)."""
    place = site / "simple/greeting"
    place.mkdir(parents=True)
    name, about = "greeting-1.0-py3-none-any.whl", "greeting-1.0.dist-info"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("greeting.py", "print('hello from a wheel')\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "")
    (place / name).write_bytes(wheel.getvalue())
    digest = hashlib.sha256(wheel.getvalue()).hexdigest()
    (place / "index.html").write_text(f'<a href="{name}#sha256={digest}">{name}</a>')


def test_curl_apt_git_and_pip_work_when_allowed(veth: Host) -> None:
    for name, add in (("packages.example", add_packages), ("git.example", add_project), ("index.example", add_wheel)):
        (veth.world.sites / name).mkdir(parents=True)
        add(veth.world.sites / name)
    hosts = allowing(*SEEN_BY_APT, *SEEN_BY_THE_OTHERS)
    words = ("run", *hosts, "--timeout-seconds", "200", "debian:12", "--")
    ended = veth.pyro(*words, f"{{ {APT} }} >&2\n{CLIENTS}", env={"PYRO_CA_FILE": str(veth.world.authority)})
    assert ended.code == 0, ended.errors
    assert ended.text.splitlines() == SAID
    assert "denied" not in ended.errors


GIT = "git ls-remote https://git.example/project.git main | cut -f 2; env | grep -i -e proxy -e secret; true"


@pytest.mark.parametrize("kind", KINDS)
def test_tls_is_believed_by_the_authority_that_was_named_and_by_no_other(kind: str, tmp_path: Path) -> None:
    with world_of(kind, tmp_path) as host:
        (host.world.sites / "git.example").mkdir(parents=True)
        add_project(host.world.sites / "git.example")
        of_the_host = {"https_proxy": "http://user:secret@127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        words = ("run", "--allow-host", "git.example", "debian:12", "--", GIT)
        strange = host.pyro(*words, env=of_the_host)
        assert "certificate" in strange.errors
        ended = host.pyro(*words, env={**of_the_host, "PYRO_CA_FILE": str(host.world.authority)})
        assert ended.text == "refs/heads/main\n", ended.errors


def test_a_proxy_that_is_allowed_is_used_by_its_variables_and_is_the_only_way(veth: Host) -> None:
    proxy = f"http://proxy.example:{PROXY_PORT}"
    hosts = ("--allow-host", f"proxy.example:{PROXY_PORT}")
    fetch = "/usr/lib/apt/apt-helper -q download-file http://example.com/page /page >&2; cat /page"
    ended = veth.pyro("run", *hosts, "--env", f"http_proxy={proxy}", "debian:12", "--", fetch)
    assert ended.text == "this is 93.184.216.34 by a proxy\n", ended.errors
    past = veth.pyro("run", *hosts, "debian:12", "--", fetch)
    assert past.text == ""
    assert "name=" in past.errors
