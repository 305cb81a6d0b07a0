"""What web servers of the tests have: packages for apt, a repository for git, a wheel for pip."""

import hashlib
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from tests.conftest import TEST_CACHE

from pyro_mcp.host.apt import Archive, sources_for
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent

FETCH_SECONDS = 200.0
# What debian:12 lacks of curl and Python; pip comes as the wheel that Debian's venv module has.
PACKAGES = (
    "curl", "libcurl4", "python3", "python3-minimal", "python3.11", "python3.11-minimal", "libpython3-stdlib",
    "libpython3.11-stdlib", "libpython3.11-minimal", "libsqlite3-0", "media-types", "libreadline8", "readline-common",
    "libncursesw6", "libnsl2", "libtirpc3", "libtirpc-common", "python3-pip-whl",
)  # fmt: skip


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
