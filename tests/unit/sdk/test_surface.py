"""The public names, and that the asynchronous form of the SDK is the synchronous one."""

import inspect

import pytest

import pyro_mcp
from pyro_mcp import AsyncPyro, Pyro, VmManager, errors
from pyro_mcp.errors import InvalidRequest, PyroError
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Task, Vm
from pyro_mcp.sdk.aio import AsyncTask, AsyncVm

# What is the caller's own thread's business, or another name for the object itself.
ONLY_SYNC = {"create_server", "manager", "progress", "state_directory", "variant"}
ONLY_ASYNC = {"busy", "work"}
PUBLIC = sorted(name for name in dir(Pyro) if not name.startswith("_"))
METHODS = [name for name in PUBLIC if name not in ONLY_SYNC]


def parameters(function: object) -> list[tuple[str, object, object]]:
    assert callable(function)
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in found if one.name != "self"]


def test_all_names_what_the_package_offers() -> None:
    assert sorted(pyro_mcp.__all__) == [
        "AsyncPyro",
        "Control",
        "Progress",
        "Pyro",
        "PyroError",
        "VmManager",
        "__version__",
        "create_server",
    ]
    assert set(pyro_mcp.__all__) <= set(dir(pyro_mcp))
    assert all(getattr(pyro_mcp, name) is not None for name in pyro_mcp.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuch"):
        _ = pyro_mcp.NoSuch


def test_every_method_is_there_for_event_loops_and_nothing_else() -> None:
    offered = {name for name in dir(AsyncPyro) if not name.startswith("_")}
    assert offered - ONLY_ASYNC == set(METHODS)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "follow_task"])
def test_a_method_for_event_loops_takes_the_same(name: str) -> None:
    assert parameters(getattr(AsyncPyro, name)) == parameters(getattr(Pyro, name))


@pytest.mark.parametrize(("plain", "awaited"), [(Task, AsyncTask), (Vm, AsyncVm)])
def test_handles_offer_the_same_in_both_forms(plain: type, awaited: type) -> None:
    names = {name for name in dir(plain) if not name.startswith("_")}
    assert names == {name for name in dir(awaited) if not name.startswith("_")}
    for name in names - {"follow"}:
        assert parameters(getattr(plain, name)) == parameters(getattr(awaited, name)), name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_documented(name: str) -> None:
    assert (getattr(Pyro, name).__doc__ or "").strip()
    assert (getattr(AsyncPyro, name).__doc__ or "").strip()


def test_every_error_is_a_value_error_or_a_runtime_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PyroError)]
    for kind in kinds:
        if kind is not PyroError:
            assert issubclass(kind, ValueError) != issubclass(kind, RuntimeError), kind
    with pytest.raises(ValueError, match="vcpu_count must be between 1 and 8"):
        Pyro().run_in_vm(environment="debian:12", command="true", vcpu_count=9)


def test_the_older_constructor_is_understood(paths: Paths) -> None:
    manager = VmManager(backend_name="qemu", base_dir=paths.state / "other", max_active_vms=4)
    pyro = Pyro(manager)
    assert pyro.state_directory == manager.state_directory == paths.state / "other"
    assert pyro.manager is pyro
    assert pyro_mcp.create_server(manager=manager).name == "pyro_mcp"
    with pytest.raises(InvalidRequest, match="backend_name"):
        Pyro(backend_name="mock")
    with pytest.raises(InvalidRequest, match="max_active_vms"):
        Pyro(max_active_vms=-1)
    with pytest.raises(InvalidRequest):
        Pyro(manager, base_dir=paths.state)
