"""What people do on a network, with the programs they do it with: curl, apt, git and pip, with TLS and by a proxy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.network_world import PROXY_PORT

from .network_host import ONLY_ROOT, Host, world_of
from .sites import add_packages, add_project, add_wheel

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("home"), ONLY_ROOT]
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


def test_a_proxy_that_is_allowed_is_used_by_its_variables_and_is_the_only_way(veth: Host) -> None:
    proxy = f"http://proxy.example:{PROXY_PORT}"
    hosts = ("--allow-host", f"proxy.example:{PROXY_PORT}")
    fetch = "/usr/lib/apt/apt-helper -q download-file http://example.com/page /page >&2; cat /page"
    ended = veth.pyro("run", *hosts, "--env", f"http_proxy={proxy}", "debian:12", "--", fetch)
    assert ended.text == "this is 93.184.216.34 by a proxy\n", ended.errors
    past = veth.pyro("run", *hosts, "debian:12", "--", fetch)
    assert past.text == ""
    assert "name=" in past.errors
