"""The kernel package is kept by its digest and read without trusting the names in it."""

from pathlib import Path

import pytest
from tests.unit.runtime.conftest import RELEASE, bzimage, deb, keep_kernel, kernel_files, module

from pyro_mcp.errors import ProgramFailed, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import kernel


def test_a_package_gives_its_image_its_modules_and_its_release(tmp_path: Path) -> None:
    package = tmp_path / "kernel.deb"
    package.write_bytes(deb(kernel_files()))
    with kernel.opened(package, tmp_path, Deadline.after(30)) as files:
        assert files.release == RELEASE
        assert files.builtin == {"ext4", "jbd2"}
        assert files.image() == kernel_files()[f"./boot/vmlinuz-{RELEASE}"]
        found = files.module("virtio_rng")
        assert found is not None
        assert found.depends == ("virtio", "virtio_ring")
        assert files.module("nvme") is None


def test_nothing_is_left_of_an_opened_package(tmp_path: Path) -> None:
    package = tmp_path / "kernel.deb"
    package.write_bytes(deb(kernel_files()))
    with kernel.opened(package, tmp_path, Deadline.after(30)):
        pass
    assert list(tmp_path.iterdir()) == [package]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({}, "0 kernel images"),
        ({"./boot/vmlinuz-1": b"", "./boot/vmlinuz-2": b""}, "2 kernel images"),
        ({"./boot/../vmlinuz-1": b""}, "0 kernel images"),
    ],
)
def test_a_package_without_exactly_one_image_is_broken(tmp_path: Path, files: dict[str, bytes], cause: str) -> None:
    package = tmp_path / "kernel.deb"
    package.write_bytes(deb(files))
    with pytest.raises(RuntimeBroken, match=cause), kernel.opened(package, tmp_path, Deadline.after(30)):
        pass


def test_modules_of_another_release_are_not_taken(tmp_path: Path) -> None:
    package = tmp_path / "kernel.deb"
    package.write_bytes(deb({"boot/vmlinuz-1": bzimage(b"x" * 9), "lib/modules/2/virtio.ko": module("virtio")}))
    with kernel.opened(package, tmp_path, Deadline.after(30)) as files:
        assert files.module("virtio") is None


def test_a_file_that_is_no_package_is_the_failure_of_dpkg(tmp_path: Path) -> None:
    package = tmp_path / "kernel.deb"
    package.write_bytes(deb(kernel_files())[:5000])
    with pytest.raises(ProgramFailed, match="dpkg-deb"), kernel.opened(package, tmp_path, Deadline.after(30)):
        pass


def test_a_kept_package_is_found_again(paths: Paths) -> None:
    assert kernel.chosen(paths) is None
    keep_kernel(paths, b"first")
    keep_kernel(paths, b"second")
    found = kernel.chosen(paths)
    assert found is not None
    assert found.path.read_bytes() == b"second"
    assert list(paths.runtimes.glob("*.deb")) == [found.path]


@pytest.mark.parametrize("damage", ["bytes", "missing", "record", "path in the record", "no object"])
def test_a_damaged_package_or_record_counts_as_none(paths: Paths, damage: str) -> None:
    keep_kernel(paths, b"package")
    found = kernel.chosen(paths)
    assert found is not None
    record = paths.runtimes / kernel.CHOICE
    match damage:
        case "bytes":
            found.path.write_bytes(b"Package")
        case "missing":
            found.path.unlink()
        case "record":
            record.write_text(record.read_text()[:20])
        case "path in the record":
            record.write_text(record.read_text().replace(found.sha256, "../../../etc/passwd"))
        case "no object":
            record.write_text("[]")
    assert kernel.chosen(paths) is None
