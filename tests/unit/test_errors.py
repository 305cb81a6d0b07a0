"""The tree of errors."""

import pytest

from pyro_mcp import errors
from pyro_mcp.errors import InvalidRequest, OperationFailed, PyroError


def every_class(root: type[PyroError] = PyroError) -> list[type[PyroError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_class(child))]


CLASSES = [cls for cls in every_class() if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_formats_with_its_cause_remedy_and_evidence(cls: type[PyroError]) -> None:
    shown = cls("it broke", details=["line"]).as_dict()
    assert shown["ok"] is False
    assert shown["error"] == "it broke"
    assert shown["details"] == ["line"]
    assert str(shown["remedy"]).endswith((".", ")"))
    assert str(cls("it broke")) == "it broke"


def test_codes_are_unique() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not PyroError], ids=lambda cls: cls.__name__)
def test_every_error_is_a_value_error_or_a_runtime_error(cls: type[PyroError]) -> None:
    assert issubclass(cls, InvalidRequest if issubclass(cls, ValueError) else OperationFailed)


def test_the_module_docstring_draws_the_whole_tree() -> None:
    for cls in CLASSES:
        assert cls.__name__ in str(errors.__doc__)
        assert cls is PyroError or cls is OperationFailed or cls.code in str(errors.__doc__)
