"""Tests in the lab: real KVM, real Firecracker. Elsewhere they are skipped, and counted: ``make lab`` runs them."""

from pathlib import Path

import pytest

from pyro_mcp.testing.lab import in_lab

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    elsewhere = pytest.mark.skip(reason="runs in the lab: `make lab`")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lab)
            if not in_lab():
                item.add_marker(elsewhere)
