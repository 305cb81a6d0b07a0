"""The public contract of the 2.3.0 line, row by row: commands, flags, defaults, JSON keys, SDK signatures, MCP tools.

The rows are data: who reads them sees the contract. More parameters and keys may come; none of these may go.
"""

import inspect
import json
import re
import subprocess
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest

import pyro_mcp
from pyro_mcp import Pyro, model
from pyro_mcp.cli.main import pyro, run
from pyro_mcp.config import load
from pyro_mcp.config.settings import ELSEWHERE, SETTINGS
from pyro_mcp.engine.network_view import info_of
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord
from pyro_mcp.engine.tasks import results
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.environments.oci.credentials import Credentials, credentials_for
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import NetworkPolicy
from pyro_mcp.paths import Paths
from pyro_mcp.sdk.tasks import PushedSync

ROOT = Path(__file__).parents[1]
MACHINE: dict[str, object] = {
    "vcpu_count": 1,
    "mem_mib": 1024,
    "ttl_seconds": 600,
    "network": False,
    "allow_host_compat": False,
}
REQUIRED = inspect.Parameter.empty

# command: {option: default}; False: a flag
SIZES = {"--vcpu-count": 1, "--mem-mib": 1024, "--ttl-seconds": 600, "--network": False, "--allow-host-compat": False}
COMMANDS: dict[str, dict[str, object]] = {
    "doctor": {"--platform": "linux-x86_64", "--json": False},
    "env list": {"--json": False},
    "env pull": {"--json": False},
    "env inspect": {"--json": False},
    "env prune": {"--json": False},
    "run": {**SIZES, "--timeout-seconds": 30, "--json": False, "--publish": None, "--allow-host": None},
    "demo": {"--network": False},
    "demo ollama": {"--base-url": "http://localhost:11434/v1", "--model": "llama3.2:3b", "--verbose": False},
    "mcp serve": {"--profile": "full"},
    "task create": {**SIZES, "--source-path": None, "--json": False},
    "task sync push": {"--dest": "/workspace", "--json": False},
    "task exec": {"--json": False},
    "task status": {"--json": False},
    "task logs": {"--json": False},
    "task delete": {"--json": False},
}

RUN = "vm_id environment environment_version command stdout stderr exit_code duration_ms execution_mode cleanup"
VM = (
    "vm_id environment environment_version vcpu_count mem_mib ttl_seconds created_at expires_at state network_enabled"
    " allow_host_compat guest_ip tap_name execution_mode metadata"
)
TASK = (
    "task_id environment environment_version vcpu_count mem_mib ttl_seconds created_at expires_at state network_enabled"
    " allow_host_compat guest_ip tap_name execution_mode workspace_path workspace_seed command_count last_command"
    " metadata"
)
ENVIRONMENT = (
    "name version description default_packages distribution distribution_version platform oci_registry oci_repository"
    " oci_reference source_digest compatibility catalog_version installed cache_dir install_dir install_manifest"
)
EXEC = "task_id environment environment_version command stdout stderr exit_code duration_ms execution_mode sequence cwd"
LOG_ENTRY = (
    "sequence command cwd exit_code duration_ms execution_mode recorded_at stdout stderr stdout_file stderr_file"
)
NETWORK = (
    "vm_id network_enabled outbound_connectivity_expected reason tap_name guest_ip gateway_ip subnet_cidr mac_address"
    " dns_servers"
)
# result: (its type, its keys)
KEYS: dict[str, tuple[Any, str]] = {
    "run": (model.RunResult, RUN),
    "cleanup": (model.Cleanup, "vm_id deleted reason"),
    "vm": (model.VmRecord, VM),
    "delete_vm": (model.DeletedVm, "vm_id deleted reason"),
    "reap_expired": (model.ReapedVms, "deleted_vm_ids count"),
    "network_info": (
        model.NetworkInfo,
        NETWORK,
    ),
    "environment": (model.EnvironmentRecord, ENVIRONMENT),
    "pulled": (model.PulledEnvironment, f"{ENVIRONMENT} kernel_image rootfs_image source"),
    "pruned": (model.PrunedEnvironments, "count deleted_environment_dirs"),
    "task": (results.TaskRecordResult, TASK),
    "task exec": (results.TaskExecResult, EXEC),
    "task logs": (results.TaskLogs, "task_id count entries"),
    "task log entry": (results.TaskLogEntry, LOG_ENTRY),
    "task delete": (results.DeletedTask, "task_id deleted reason"),
    "task sync push": (PushedSync, "task_id execution_mode workspace_sync"),
}

# method: (positional parameters, keyword parameters with defaults)
METHODS: dict[str, tuple[list[str], dict[str, object]]] = {
    "list_environments": ([], {}),
    "inspect_environment": (["environment"], {}),
    "pull_environment": (["environment"], {}),
    "prune_environments": ([], {}),
    "create_vm": ([], {"environment": REQUIRED, **MACHINE}),
    "start_vm": (["vm_id"], {}),
    "exec_vm": (["vm_id"], {"command": REQUIRED, "timeout_seconds": 30}),
    "stop_vm": (["vm_id"], {}),
    "delete_vm": (["vm_id"], {}),
    "status_vm": (["vm_id"], {}),
    "network_info_vm": (["vm_id"], {}),
    "reap_expired": ([], {}),
    "run_in_vm": ([], {"environment": REQUIRED, "command": REQUIRED, "timeout_seconds": 30, **MACHINE}),
    "create_task": ([], {"environment": REQUIRED, "source_path": None, **MACHINE}),
    "push_task_sync": (["task_id", "source_path"], {"dest": "/workspace"}),
    "exec_task": (["task_id"], {"command": REQUIRED, "timeout_seconds": 30}),
    "status_task": (["task_id"], {}),
    "logs_task": (["task_id"], {}),
    "delete_task": (["task_id"], {}),
    "create_server": ([], {}),
}

# tool: (required parameters, defaults)
TOOLS: dict[str, tuple[set[str], dict[str, object]]] = {
    "vm_run": ({"environment", "command"}, {**MACHINE, "timeout_seconds": 30}),
    "vm_list_environments": (set(), {}),
    "vm_create": ({"environment"}, MACHINE),
    "vm_start": ({"vm_id"}, {}),
    "vm_stop": ({"vm_id"}, {}),
    "vm_delete": ({"vm_id"}, {}),
    "vm_status": ({"vm_id"}, {}),
    "vm_network_info": ({"vm_id"}, {}),
    "vm_exec": ({"vm_id", "command"}, {"timeout_seconds": 30}),
    "vm_reap_expired": (set(), {}),
    "task_create": ({"environment"}, {**MACHINE, "source_path": None}),
    "task_sync_push": ({"task_id", "source_path"}, {"dest": "/workspace"}),
    "task_exec": ({"task_id", "command"}, {"timeout_seconds": 30}),
    "task_status": ({"task_id"}, {}),
    "task_logs": ({"task_id"}, {}),
    "task_delete": ({"task_id"}, {}),
}
VARIABLES = (
    "PYRO_ENVIRONMENT_CACHE_DIR",
    "PYRO_RUNTIME_BUNDLE_DIR",
    "PYRO_VM_ENABLE_NETWORK",
    "PYRO_OCI_REQUEST_TIMEOUT_SECONDS",
    "PYRO_OCI_UPLOAD_TIMEOUT_SECONDS",
    "PYRO_OCI_UPLOAD_CHUNK_SIZE_BYTES",
    "OCI_REGISTRY_USERNAME",
    "OCI_REGISTRY_PASSWORD",
    "DOCKERHUB_USERNAME",
    "DOCKERHUB_TOKEN",
)
# target: what it does, as `make --dry-run` shows it
MAKE_TARGETS = {
    "help": "awk",
    "setup": "pyro setup --yes",
    "check": "pytest",
    "dist-check": "scripts/dist_check.sh",
    "pypi-publish": "scripts/pypi_publish.sh",
    "runtime-bundle": "pyro_mcp.runtime.materialize",
    "runtime-materialize": "pyro_mcp.runtime.materialize",
    "runtime-fetch-binaries": "pyro runtime install",
    "runtime-build-kernel-real": "pyro runtime install",
    "runtime-build-rootfs-real": "pyro env pull",
    "runtime-publish-environment-oci": "scripts/publish_environments.py",
    "runtime-publish-official-environments-oci": "scripts/publish_environments.py",
    "runtime-boot-check": "pyro doctor --deep",
    "runtime-network-check": "pyro demo --network",
    "doctor": "pyro doctor",
    "demo": "pyro run debian:12 -- git --version",
    "network-demo": "pyro demo --network",
    "ollama-demo": "pyro demo ollama --model some",
}
# environment: the packages it promises
ENVIRONMENTS = {
    "debian:12": ("bash", "coreutils", "git"),
    "debian:12-base": ("bash", "coreutils"),
    "debian:12-build": ("bash", "coreutils", "git", "gcc", "make", "cmake", "python3"),
}
# exit code: a command line that ends with it where no VMM is
EXITS = {
    0: ["run", "debian:12", "--allow-host-compat", "--", "true"],
    1: ["env", "inspect", "nosuch:1"],
    2: ["run", "debian:12", "--nosuch", "--", "true"],
    3: ["run", "debian:12", "--allow-host-compat", "--", "exit 3"],
    124: ["run", "debian:12", "--allow-host-compat", "--timeout-seconds", "0.2", "--", "sleep 60"],
    125: ["run", "debian:12", "--", "true"],
    127: ["run", "debian:12", "--allow-host-compat", "--", "nosuchprogram"],
    137: ["run", "debian:12", "--allow-host-compat", "--", "kill -9 $$"],
}


def command_of(words: str) -> click.Command:
    """The command that *words* name."""
    found: click.Command = pyro
    for word in words.split():
        assert isinstance(found, click.Group)
        child = found.get_command(click.Context(found), word)
        assert child is not None, words
        found = child
    return found


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The JSON object that a command line prints, in the form that is promised."""
    assert run(list(words)) == 0
    text = capsys.readouterr().out
    found: dict[str, Any] = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n"
    return found


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_has_its_options_and_defaults(words: str) -> None:
    options = {name: one for one in command_of(words).params if isinstance(one, click.Option) for name in one.opts}
    for name, default in COMMANDS[words].items():
        assert name in options
        assert options[name].to_info_dict()["default"] == default, name


@pytest.mark.parametrize("result", KEYS)
def test_a_result_has_its_keys(result: str) -> None:
    kind, keys = KEYS[result]
    assert set(keys.split()) <= set(get_type_hints(kind))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_parameters_and_defaults(name: str) -> None:
    positional, keywords = METHODS[name]
    found = inspect.signature(getattr(Pyro, name)).parameters
    assert list(found)[1 : len(positional) + 1] == positional
    for parameter, default in keywords.items():
        assert found[parameter].default == default, parameter
        assert found[parameter].kind is not inspect.Parameter.POSITIONAL_ONLY
    accepted = {"self", *positional, *keywords}
    for parameter, one in found.items():
        optional = one.default is not REQUIRED or one.kind is inspect.Parameter.VAR_KEYWORD
        assert parameter in accepted or optional, f"{parameter} is one more that has to be given"


def test_the_package_has_its_names_and_the_constructor_its_parameters() -> None:
    for name in ("Pyro", "VmManager", "create_server", "__version__"):
        assert hasattr(pyro_mcp, name)
    parameters = inspect.signature(Pyro).parameters
    assert next(iter(parameters)) == "manager"
    assert {"manager", "backend_name", "base_dir", "cache_dir", "max_active_vms"} <= set(parameters)
    assert "manager" in inspect.signature(pyro_mcp.create_server).parameters
    assert isinstance(inspect.getattr_static(Pyro, "manager"), property)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_has_its_parameters_and_defaults(name: str) -> None:
    golden = ROOT / "tests" / "unit" / "mcp_server" / "golden" / "tools.json"  # kept equal to the server by its test
    tool = next(tool for tool in json.loads(golden.read_text()) if tool["name"] == name)
    required, defaults = TOOLS[name]
    schema = tool["inputSchema"]
    assert set(schema.get("required", [])) == required
    for parameter, default in defaults.items():
        assert schema["properties"][parameter].get("default") == default, parameter


def test_the_server_has_its_name(paths: Paths) -> None:
    assert pyro_mcp.create_server().name == "pyro_mcp"


@pytest.mark.parametrize("name", [name for name in VARIABLES if name.startswith("PYRO_")])
def test_a_variable_is_known(name: str) -> None:
    assert name in {row.variable for row in SETTINGS} | set(ELSEWHERE)


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_a_make_target_does_what_it_is_for(target: str) -> None:
    argv = ["make", "--dry-run", "--directory", str(ROOT), target, "OLLAMA_DEMO_FLAGS=--model some"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert MAKE_TARGETS[target] in done.stdout


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_explained(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("name", ["TWINE_PASSWORD", "TWINE_USERNAME", "PYPI_REPOSITORY_URL"])
def test_a_variable_of_the_upload_is_explained(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "install.md").read_text()


def test_the_patience_with_registries_is_the_same() -> None:
    settings = load({})
    found = (settings.oci_request_timeout, settings.oci_upload_timeout, settings.oci_upload_chunk_bytes)
    assert found == (90, 900, 8_388_608)
    for variable in VARIABLES:
        if variable.startswith("PYRO_OCI_"):
            for bad in ("0", "-1", "many", "1.5"):
                with pytest.raises(ValueError, match=variable):
                    load({variable: bad})


def test_each_name_of_a_login_has_its_own_fallback_at_docker_hub() -> None:
    hub = {"DOCKERHUB_USERNAME": "u", "DOCKERHUB_TOKEN": "t"}
    own = {"OCI_REGISTRY_USERNAME": "own", "OCI_REGISTRY_PASSWORD": "secret"}
    for environ, login in (
        (hub, Credentials("u", "t")),
        ({**hub, **own}, Credentials("own", "secret")),
        ({**hub, "OCI_REGISTRY_USERNAME": "own"}, Credentials("own", "t")),
        ({**hub, "OCI_REGISTRY_PASSWORD": "secret"}, Credentials("u", "secret")),
    ):
        assert credentials_for("docker.io", environ, named_by_user=True) == login


def test_enabled_by_default_is_what_the_variable_says(
    no_vmm: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, enabled in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("PYRO_VM_ENABLE_NETWORK", value)
        run(["doctor", "--json"])
        assert json.loads(capsys.readouterr().out)["networking"]["enabled_by_default"] is enabled


def test_the_state_of_a_pyro_is_below_its_base_dir(no_vmm: Paths, tmp_path: Path) -> None:
    pyro = Pyro(base_dir=tmp_path / "own")
    task = pyro.create_task(environment="debian:12", allow_host_compat=True)["task_id"]
    assert (tmp_path / "own" / "tasks" / task).is_dir()
    assert not no_vmm.state.exists()
    pyro.delete_task(task)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_has_its_packages(name: str) -> None:
    entry = next(entry for entry in CATALOG if entry.name == name)
    assert tuple(entry.packages) == ENVIRONMENTS[name]


@pytest.mark.parametrize("code", EXITS)
def test_an_exit_code_means_what_it_says(code: int, no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(EXITS[code]) == code


def test_the_network_of_a_machine_has_its_keys(paths: Paths) -> None:
    """In a namespace of its own: all but the MAC is the same for every machine."""
    now = time.time()
    record = MachineRecord(
        machine_id="0123456789ab",
        state="started",
        environment="debian:12",
        environment_version="1.0.0",
        vcpu_count=1,
        mem_mib=1024,
        disk_mib=4096,
        ttl_seconds=600,
        created_at=now,
        expires_at=now + 600,
        allow_host_compat=False,
        driver="qemu",
        execution_mode="guest_serial",
        isolation=NO_ISOLATION,
        owner=None,
        actor=ProcessId.current(),
    )
    without = info_of(paths, record)
    assert {key: without[key] for key in ("vm_id", "network_enabled", "outbound_connectivity_expected")} == {
        "vm_id": "0123456789ab",
        "network_enabled": False,
        "outbound_connectivity_expected": False,
    }
    assert without["reason"]
    found = info_of(paths, replace(record, network=NetworkPolicy("public")))
    assert set(NETWORK.split()) - {"reason"} <= set(found)
    assert found["network_enabled"]
    assert re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", found["mac_address"])
    assert ip_address(found["guest_ip"]) in ip_network(found["subnet_cidr"])
    assert ip_address(found["gateway_ip"]) in ip_network(found["subnet_cidr"])
    assert all(ip_address(server) for server in found["dns_servers"])
    view = replace(record, network=NetworkPolicy("public")).public()
    assert (view["guest_ip"], view["tap_name"]) == (found["guest_ip"], found["tap_name"])


def test_limits_are_told_with_their_numbers(no_vmm: Paths) -> None:
    for name, low, high, bad in (("vcpu_count", 1, 8, 9), ("mem_mib", 256, 32768, 255), ("ttl_seconds", 60, None, 59)):
        wrong: dict[str, Any] = {name: bad}
        with pytest.raises(ValueError, match=f"{name} must be between {low} and {high or ''}"):
            Pyro().create_vm(environment="debian:12", **wrong)
    with pytest.raises(ValueError, match="timeout_seconds must be positive"):
        Pyro().run_in_vm(environment="debian:12", command="true", timeout_seconds=0)


def test_what_commands_print_has_the_keys(no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    done = printed(capsys, "run", "debian:12", "--allow-host-compat", "--json", "--", "echo out")
    assert set(RUN.split()) <= set(done)
    assert done["cleanup"] == {"vm_id": done["vm_id"], "deleted": True, "reason": "post_exec_cleanup"}
    assert set(done["vm_id"]) <= set("0123456789abcdef")
    assert len(done["vm_id"]) == 12
    listed = printed(capsys, "env", "list", "--json")
    assert set(listed) == {"catalog_version", "environments"}
    assert set(ENVIRONMENT.split()) - {"install_manifest"} <= set(listed["environments"][0])
    task = printed(capsys, "task", "create", "debian:12", "--allow-host-compat", "--json")
    assert set(TASK.split()) <= set(task)
    seed = {"mode": "empty", "source_path": None, "destination": "/workspace", "entry_count": 0, "bytes_written": 0}
    assert (task["workspace_path"], task["workspace_seed"]) == ("/workspace", seed)
    did = printed(capsys, "task", "exec", task["task_id"], "--json", "--", "echo out")
    assert set(EXEC.split()) <= set(did)
    assert (did["sequence"], did["cwd"]) == (1, "/workspace")
    logs = printed(capsys, "task", "logs", task["task_id"], "--json")
    assert set(LOG_ENTRY.split()) <= set(logs["entries"][0])
    last = printed(capsys, "task", "status", task["task_id"], "--json")["last_command"]
    assert {"sequence", "command", "cwd", "exit_code", "duration_ms", "execution_mode"} <= set(last)
    deleted = printed(capsys, "task", "delete", task["task_id"], "--json")
    assert deleted == {"task_id": task["task_id"], "deleted": True, "reason": "explicit_delete"}


def test_a_failure_is_an_object_that_is_not_ok(no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "inspect", "nosuch:1", "--json"]) == 1
    failure = json.loads(capsys.readouterr().out)
    assert failure["ok"] is False
    assert isinstance(failure["error"], str)
