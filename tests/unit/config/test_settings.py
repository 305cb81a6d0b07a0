"""Settings from environment variables."""

import pytest

from pyro_mcp.config import SETTINGS, load, unknown_variables
from pyro_mcp.errors import InvalidRequest


def test_without_variables_the_defaults_hold() -> None:
    settings = load({})
    for row in SETTINGS:
        assert getattr(settings, row.field) == row.default


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("PYRO_DRIVER", "qemu", "driver", "qemu"),
        ("PYRO_MAX_ACTIVE_VMS", "3", "max_active_vms", 3),
        ("PYRO_DEBUG_CONSOLE", "1", "debug_console", True),
        ("PYRO_DEBIAN_MIRROR", "file:///srv/debian", "debian_mirror", "file:///srv/debian"),
    ],
)
def test_a_variable_sets_its_field(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(load({variable: text}), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PYRO_DRIVER", "xen"),
        ("PYRO_MAX_ACTIVE_VMS", "-1"),
        ("PYRO_MAX_ACTIVE_VMS", "many"),
        ("PYRO_BOOT_TIMEOUT_SECONDS", "0"),
        ("PYRO_BOOT_TIMEOUT_SECONDS", "\u0663"),
        ("PYRO_DEBUG_CONSOLE", "perhaps"),
        ("PYRO_DEBIAN_MIRROR", "ftp://mirror"),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=variable):
        load({variable: text})


def test_an_unknown_variable_is_answered_with_the_nearest_one() -> None:
    assert unknown_variables({"PYRO_DRIVR": "qemu", "HOME": "/"}) == [
        "PYRO_DRIVR is not a setting; did you mean PYRO_DRIVER?"
    ]
