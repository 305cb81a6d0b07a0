"""The rows of the 2.3.0 contract, and what checks each of them. A check that is named here exists.

The rows are those of the contract as it was handed down, in its order; where the new line decides otherwise on purpose
(`docs/decisions`, the changelog's "Changed"), the check is that of the decision.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CONTRACT, LINES, FILES = "test_public_contract.py", "test_contract_lines.py", "test_contract_files.py"
HELP, MAIN, POLISH = "unit/cli/test_help.py", "unit/cli/test_main.py", "unit/cli/test_polish.py"
DOCS, OCI, REGISTRY = "guest/test_docs_commands.py", "unit/oci/test_faults.py", "registry/test_registry.py"
OPTIONS = f"{CONTRACT}::test_a_command_has_its_options_and_defaults"
PRINTED = f"{CONTRACT}::test_what_commands_print_has_the_keys"
KEYS = f"{CONTRACT}::test_a_result_has_its_keys"
METHOD = f"{CONTRACT}::test_a_method_has_its_parameters_and_defaults"
TOOL = f"{CONTRACT}::test_a_tool_has_its_parameters_and_defaults"
READER = f"{DOCS}::test_every_command_does_what_the_document_shows"
MANIFEST = f"{FILES}::test_the_manifest_of_an_artifact_names_its_layers"
MAKE = f"{CONTRACT}::test_a_make_target_does_what_it_is_for"
EXITS = f"{CONTRACT}::test_an_exit_code_means_what_it_says"

ROWS: dict[str, tuple[str, ...]] = {
    # a. CLI
    "pyro --version": (f"{LINES}::test_the_version_is_one_line_on_stdout",),
    "parser errors: usage on stderr, 2": (f"{LINES}::test_what_the_parser_refuses_is_told_on_stderr", EXITS),
    "JSON: indented, sorted, a newline at its end": (PRINTED,),
    "a failure as JSON": (f"{CONTRACT}::test_a_failure_is_an_object_that_is_not_ok",),
    "a failure for people": (f"{LINES}::test_an_error_begins_with_its_mark_on_stderr",),
    "doctor: options, exit code": (OPTIONS, f"{MAIN}::test_doctor_without_any_program_reports_and_fails"),
    "env list, pull, inspect, prune: options, exit codes": (OPTIONS, EXITS, READER),
    "run: options, streams, exit code": (OPTIONS, EXITS, f"{LINES}::test_the_lines_of_a_run"),
    "demo": (OPTIONS, "guest/test_demo.py::test_the_demo_prints_the_whole_result_as_json"),
    "demo ollama": (OPTIONS, "guest/test_demo.py::test_a_model_runs_a_command_in_a_guest_and_is_given_its_output"),
    "mcp serve": (OPTIONS, "guest/test_mcp.py::test_a_task_from_its_creation_to_its_deletion"),
    "task create, exec, status, logs, delete: options, exit codes": (OPTIONS, f"{LINES}::test_the_lines_of_tasks"),
    "task sync push": (OPTIONS, READER),
    "one word to the shell, several quoted": (f"{LINES}::test_one_word_is_the_shells_and_several_are_quoted",),
    "options before and behind ENV": (f"{LINES}::test_options_stand_before_or_behind_the_environment",),
    "run without a command": (f"{LINES}::test_a_run_without_a_command_says_what_is_missing",),
    # Line formats
    "lines: doctor": (f"{LINES}::test_the_lines_of_doctor",),
    "lines: env list": (f"{LINES}::test_the_lines_of_env_list_are_sorted_by_name",),
    "lines: env pull": (READER, f"{LINES}::test_the_lines_of_an_installed_and_of_a_pulled_environment"),
    "lines: env inspect": (f"{LINES}::test_the_lines_of_env_inspect",),
    "lines: detail": (f"{LINES}::test_the_lines_of_an_installed_and_of_a_pulled_environment",),
    "lines: env prune": (f"{LINES}::test_the_lines_of_env_prune",),
    "lines: run": (f"{LINES}::test_the_lines_of_a_run",),
    "lines: task create, status, exec, logs, delete": (f"{LINES}::test_the_lines_of_tasks",),
    "lines: task sync push": (f"{LINES}::test_the_line_of_a_push",),
    "lines: demo ollama": (
        "guest/test_demo.py::test_a_model_runs_a_command_in_a_guest_and_is_given_its_output",
        "guest/test_demo.py::test_a_model_that_runs_nothing_is_helped_out",
        "unit/cli/test_demo_ollama.py::test_a_server_that_is_not_there_is_named_with_the_remedy",
    ),
    # JSON shapes
    "json: doctor": (f"{FILES}::test_the_report_of_doctor_has_its_keys",),
    "json: env, list, pull, prune": (KEYS, PRINTED),
    "json: run, exec_vm, cleanup": (KEYS, PRINTED),
    "json: vm record, delete_vm, network_info_vm, reap_expired": (KEYS,),
    "json: task record, sync push, exec, logs, delete": (KEYS, PRINTED),
    "ids: 12 lower-case hex digits": (PRINTED,),
    "execution modes": (PRINTED, "lab/test_run.py::test_a_run_answers_over_vsock_isolated_by_hardware_and_in_its_cell"),
    # b. SDK
    "sdk: names and constructor": (
        f"{CONTRACT}::test_the_package_has_its_names_and_the_constructor_its_parameters",
        "unit/sdk/test_surface.py::test_the_older_constructor_is_understood",
    ),
    "sdk: ValueError and RuntimeError": (
        "unit/sdk/test_surface.py::test_every_error_is_a_value_error_or_a_runtime_error",
    ),
    "sdk: methods": (METHOD,),
    "sdk: tasks cross processes": ("guest/test_mcp.py::test_a_job_is_started_read_waited_for_and_survives_the_server",),
    # c. MCP
    "mcp: name": (f"{CONTRACT}::test_the_server_has_its_name",),
    "mcp: tools, parameters, defaults": (
        TOOL,
        "unit/mcp_server/test_schemas.py::test_the_golden_file_is_what_the_server_lists",
    ),
    "mcp: text and structured result": (
        "unit/mcp_server/test_calls.py::test_a_run_answers_with_the_sdks_object_and_a_compact_text",
    ),
    "mcp: errors": ("unit/mcp_server/test_calls.py::test_hostile_arguments_are_refused_with_a_typed_error",),
    "mcp: host execution": (
        "unit/mcp_server/test_calls.py::test_host_execution_is_refused_unless_the_operator_allows_it",
    ),
    # d. Variables, state, cache, bundle, catalog
    "variables": (f"{CONTRACT}::test_a_variable_is_known", f"{CONTRACT}::test_a_variable_is_explained"),
    "PYRO_ENVIRONMENT_CACHE_DIR": (
        f"{FILES}::test_the_cache_is_where_the_variable_says",
        f"{LINES}::test_the_cache_is_shown_as_it_was_named",
    ),
    "PYRO_RUNTIME_BUNDLE_DIR": (f"{FILES}::test_doctor_knows_the_bundle_that_is_named",),
    "PYRO_VM_ENABLE_NETWORK": (f"{CONTRACT}::test_enabled_by_default_is_what_the_variable_says",),
    "logins": (
        f"{CONTRACT}::test_each_name_of_a_login_has_its_own_fallback_at_docker_hub",
        f"{REGISTRY}::test_make_publishes_with_the_credentials_of_the_environment",
    ),
    "PYRO_OCI_*": (f"{CONTRACT}::test_the_patience_with_registries_is_the_same",),
    "TWINE_*, PYPI_REPOSITORY_URL": (
        f"{CONTRACT}::test_a_variable_of_the_upload_is_explained",
        "packaging/test_publish.py::test_both_distributions_arrive_with_the_token",
        "packaging/test_publish.py::test_another_user_may_be_named",
    ),
    "state root": (f"{CONTRACT}::test_the_state_of_a_pyro_is_below_its_base_dir",),
    "files of machines": ("unit/test_docs.py::test_every_path_is_explained_and_everything_explained_is_a_path",),
    "files of histories": (f"{FILES}::test_a_history_is_in_files_numbered_from_one",),
    "cache: directories": (f"{FILES}::test_an_environment_of_the_catalog_has_its_source_and_its_directory",),
    "environment.json": (f"{FILES}::test_an_installed_environment_has_its_record",),
    "installed": (f"{FILES}::test_an_environment_without_its_parts_is_not_installed",),
    "source values": (f"{OCI}::test_an_image_is_pulled",),
    "prune": (f"{FILES}::test_prune_removes_what_is_no_installed_environment",),
    "bundle": (f"{FILES}::test_a_bundle_is_read_where_its_parts_are_promised",),
    "catalog": (
        f"{FILES}::test_an_environment_of_the_catalog_has_its_source_and_its_directory",
        f"{CONTRACT}::test_an_environment_has_its_packages",
        f"{FILES}::test_every_row_of_the_catalog_is_promised",
    ),
    "network allocation": (
        KEYS,
        f"{CONTRACT}::test_the_network_of_a_machine_has_its_keys",
        "guest/test_network.py::test_machines_side_by_side_have_an_address_each",
    ),
    "make targets": (MAKE,),
    # e. OCI artifact
    "artifact: layout, index entry": (f"{FILES}::test_an_artifact_is_a_layout_with_one_manifest",),
    "artifact: manifest, layers, annotations, config": (MANIFEST,),
    "artifact: tar members, environment.json": (f"{FILES}::test_a_layer_of_an_artifact_is_one_plain_file",),
    "pull: reference, index, platform": (
        "unit/oci/test_reference.py::test_a_name_has_one_normal_form",
        f"{REGISTRY}::test_an_index_gives_the_image_for_this_platform",
    ),
    "pull: token, digests, tar safety": (
        f"{OCI}::test_credentials_go_to_the_token_server_and_only_for_a_registry_the_user_named",
        f"{OCI}::test_a_changed_layer_is_refused",
        f"{OCI}::test_a_layer_with_tricks_is_refused_by_name",
    ),
    "push: pieces, again, reference of the catalog": (
        f"{REGISTRY}::test_publishing_again_sends_nothing",
        f"{REGISTRY}::test_a_broken_upload_goes_on_where_the_registry_stands",
        f"{REGISTRY}::test_make_publishes_with_the_credentials_of_the_environment",
    ),
    # f. Guest protocol: replaced as a whole; what can be seen of it
    "exec: shell, exit code, timeout": (
        EXITS,
        "guest/test_run.py::test_a_timeout_keeps_what_was_printed_and_exits_with_124",
    ),
    "task exec: in /workspace": (f"{LINES}::test_the_lines_of_tasks",),
    # g. Limits and rules
    "limits of sizes and times": (f"{CONTRACT}::test_limits_are_told_with_their_numbers",),
    "expiry": ("guest/test_task_ends.py::test_an_idle_task_expires_says_so_and_keeps_its_history",),
    "sources of a push": ("unit/workspace/test_push.py::test_a_source_that_is_missing_or_no_source_says_so",),
    "members of archives": ("unit/workspace/test_archives.py::test_a_hostile_archive_is_refused_with_its_reason",),
    "destination": ("unit/workspace/test_push.py::test_the_destination_stays_inside_the_workspace",),
    "modes and times survive": ("unit/workspace/test_push.py::test_everything_survives",),
}


@cache
def names_in(module: str) -> frozenset[str]:
    """The names of the tests in *module*."""
    tree = ast.parse((TESTS / module).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_")


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_checks(row: str) -> None:
    assert ROWS[row]
    for check in ROWS[row]:
        module, _, name = check.partition("::")
        assert name in names_in(module), f"{check} is not there"


@pytest.mark.parametrize("module", [CONTRACT, LINES, FILES])
def test_a_check_of_the_contract_belongs_to_a_row(module: str) -> None:
    named = {check.partition("::")[2] for checks in ROWS.values() for check in checks}
    assert names_in(module) - named == set()
