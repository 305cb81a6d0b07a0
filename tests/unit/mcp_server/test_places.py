"""Which host paths a client may name."""

from pathlib import Path

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.mcp_server.places import Places


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    project = home / "project"
    project.mkdir(parents=True)
    (home / "secret").write_text("s")
    (project / "out").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(project)
    return project


def test_the_working_directory_is_allowed_and_nothing_around_it(project: Path) -> None:
    places = Places.of((), local=True)
    assert places.check(str(project)) == project
    assert places.check("sub/dir") == project / "sub" / "dir"
    for text in ("..", "~", "/", "out", "out/secret", "/etc", f"{project}/../secret", f"{project}x", "a\nb", "a\0", ""):
        with pytest.raises(InvalidRequest):
            places.check(text)


def test_a_working_directory_that_nobody_chose_is_not_allowed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wide in (project.parent, Path("/")):
        monkeypatch.chdir(wide)
        with pytest.raises(InvalidRequest, match="allowed: none"):
            Places.of((), local=True).check(str(project))


def test_what_the_operator_names_is_all_there_is(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    places = Places.of([other], local=True)
    assert places.check(str(other / "x")) == other / "x"
    assert not places.wants_roots(str(project))
    with pytest.raises(InvalidRequest):
        places.check(str(project), [project.as_uri()])
    with pytest.raises(InvalidRequest, match="does not exist"):
        Places.of([other / "nosuch"], local=True)


def test_the_clients_roots_count_where_it_is_on_this_host(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "with space"
    other.mkdir()
    places = Places.of((), local=True)
    assert places.wants_roots(str(other))
    assert not places.wants_roots(str(project))
    assert places.check(str(other / "x"), [other.as_uri()]) == other / "x"
    for root in ("file:///", project.parent.as_uri(), "https://example.com/", "file://elsewhere/tmp"):
        with pytest.raises(InvalidRequest):
            places.check(str(other), [root])
    remote = Places.of((), local=False)
    assert not remote.wants_roots(str(other))
    with pytest.raises(InvalidRequest):
        remote.check(str(project), [other.as_uri()])
