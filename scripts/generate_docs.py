"""Write the reference pages of docs/ from the code; with ``--check`` only say whether they are up to date."""

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import anyio
import click

import pyro_mcp
from pyro_mcp import errors
from pyro_mcp.cli.main import pyro
from pyro_mcp.config.settings import ELSEWHERE, SETTINGS, Setting

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Made by scripts/generate_docs.py. Change the code and run it again. -->\n"
BLOCK = "\b"  # click's mark for a paragraph that is not rewrapped

# What other layers read. A variable without a row here stops the script.
READ_ELSEWHERE = {
    "PYRO_ENVIRONMENT_CACHE_DIR": "Where environments are kept. Default: `environments` in pyro's cache directory.",
    "PYRO_RUNTIME_BUNDLE_DIR": "A [runtime bundle](../runtime_sources/README.md), taken in place of what is installed.",
    "PYRO_VM_ENABLE_NETWORK": "Only shown by `pyro doctor --json`, as `enabled_by_default`; it changes nothing.",
    "PYRO_MCP_TOKEN": "The bearer token for clients of `pyro mcp serve --http`; unset: a new one at every start.",
    "PYRO_GO": "At build time: the `go` program that compiles the guest agent.",
}
SETTINGS_HEAD = """# Settings

Every setting is an environment variable. An option of the command line goes before it. A value that a variable does
not take is an `invalid_request` that names the variable; `pyro doctor` points out `PYRO_` variables that nobody reads.

| variable | default | what it is |
|---|---|---|
"""
SETTINGS_MIDDLE = """
`pyro config show` has the values in force, and whether each is the default or from the environment.

Other variables:

| variable | what it is |
|---|---|
"""
SETTINGS_TAIL = """| `NO_COLOR` | Set to anything: no colours. Without a terminal there are none anyway. |
| `XDG_STATE_HOME` | State goes to `pyro-mcp` below it. Default: `~/.local/state`. |
| `XDG_CACHE_HOME` | Caches go to `pyro-mcp` below it. Default: `~/.cache`. |
| `http_proxy`, `https_proxy`, `no_proxy`, `all_proxy` | Handed to the programs that fetch packages, in either case. |
| `TMPDIR` | Where a bootstrap by a normal user unpacks. |
| `OCI_REGISTRY_USERNAME`, `OCI_REGISTRY_PASSWORD` | Login at a registry that the command names, to pull or publish. |
| `OCI_REGISTRY_HOST` | The one registry these two are for; empty: whichever is named. |
| `DOCKERHUB_USERNAME`, `DOCKERHUB_TOKEN` | Login at docker.io. |
| `DOCKER_CONFIG` | Where docker's `config.json` with logins and credential helpers is. Default: `~/.docker`. |
| `SSL_CERT_FILE` | Certificates to trust in place of the host's. |
"""
CLI_HEAD = """# Command line

[The first run](first-run.md) has examples, [troubleshooting](troubleshooting.md) the errors, and the
[README](../README.md#exit-codes) the exit codes. `-h` after any verb shows the same as this page. What the README lists
under "Not yet" is refused, even where an option for it exists.
"""


CONTRACT_HEAD = """# Public contract

What programs may rely on. Until the next major version nothing here is taken away or changes its meaning; parameters
with defaults, keys and tools may be added. What is not here is inside, and may change.

| part | where it is written down |
|---|---|
| commands, options and their defaults | [command line](cli.md) |
| environment variables | [settings](settings.md) |
| exit codes | the [README](../README.md#exit-codes) |
| what each error code means | [troubleshooting](troubleshooting.md) |
| files that are kept | [on disk](on-disk.md) |

stdout is the result, stderr is progress and the guest's own stderr. With `--json` the result is one JSON object, and a
failure is `{"ok": false, "error": ..., "code": ..., "remedy": ..., "details": [...]}`.

## Python

`from pyro_mcp import` """
CONTRACT_METHODS = """
Results are dictionaries; [below](#results) are their keys. Every method raises a `PyroError`: a `ValueError` for what
was asked, a `RuntimeError` for what could not be done.
"""
CONTRACT_ERRORS = """
## Errors

| code | is a | exit code of `run` and `task exec` |
|---|---|---|
"""
CONTRACT_TOOLS = """
## MCP tools

`pyro mcp serve` with the profile `full`. `?`: may be left out.

| tool | parameters |
|---|---|
"""
CONTRACT_RESULTS = """
## Results

What the SDK returns, `--json` prints and the MCP tools answer. `?`: not always there.
"""
RESULT_MODULES = (
    "pyro_mcp.model",
    "pyro_mcp.engine.tasks.results",
    "pyro_mcp.sdk.tasks",
    "pyro_mcp.mcp_server.outputs",
)


def contract_page() -> str:
    """docs/public-contract.md."""
    names = ", ".join(f"`{name}`" for name in pyro_mcp.__all__)
    codes = "".join(
        f"| `{found.code}` | {'Value' if issubclass(found, ValueError) else 'Runtime'}Error | {found.exit_code} |\n"
        for found in _error_classes(errors.PyroError)
        if found is not errors.PyroError
    )
    results = "\n".join(_result(found) for name in RESULT_MODULES for found in _results(importlib.import_module(name)))
    return (
        f"{CONTRACT_HEAD}{names}\n{CONTRACT_METHODS}\n{_methods()}{CONTRACT_ERRORS}{codes}"
        f"{CONTRACT_TOOLS}{_tools()}{CONTRACT_RESULTS}\n{results}\n{NOTE}"
    )


def _methods() -> str:
    """The constructor and the public methods of ``Pyro``, a line each."""
    found = {"Pyro": pyro_mcp.Pyro.__init__} | {
        f"Pyro.{name}": member
        for name, member in inspect.getmembers(pyro_mcp.Pyro, inspect.isfunction)
        if not name.startswith("_")
    }
    lines = "".join(f"{name}{_signature(member)}\n" for name, member in found.items())
    return f"```text\n{lines}```\n"


def _signature(member: Callable[..., object]) -> str:
    """Parameters and defaults, without types: those are in the code, for editors and type checkers."""
    signature = inspect.signature(member)
    parameters = [
        row.replace(annotation=row.empty, default=_Later() if callable(row.default) else row.default)
        if row.default is not row.empty
        else row.replace(annotation=row.empty)
        for name, row in signature.parameters.items()
        if name != "self"
    ]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


class _Later:
    """A default that has no short name."""

    def __repr__(self) -> str:
        return "..."


def _error_classes(root: type[errors.PyroError]) -> Iterator[type[errors.PyroError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _error_classes(child)


def _tools() -> str:
    rows = []
    for tool in anyio.run(pyro_mcp.create_server(profile="full").list_tools):
        required = tool.input_schema.get("required", [])
        parameters = tool.input_schema.get("properties", {})
        words = [f"`{name}`" if name in required else f"`{name}`?" for name in parameters]
        rows.append(f"| `{tool.name}` | {', '.join(words) or 'none'} |\n")
    return "".join(rows)


def _results(module: ModuleType) -> Iterator[type]:
    """The result types that *module* defines, in its order."""
    for member in vars(module).values():
        if typing.is_typeddict(member) and member.__module__ == module.__name__:
            yield member


def _result(found: type) -> str:
    optional: frozenset[str] = getattr(found, "__optional_keys__", frozenset())
    keys = ", ".join(f"`{key}`{'?' if key in optional else ''}" for key in typing.get_type_hints(found))
    return f"**{found.__name__}**: {keys}.\n"


def settings_page() -> str:
    """docs/settings.md."""
    rows = "".join(f"| `{row.variable}` | {_default(row)} | {row.help} |\n" for row in SETTINGS)
    others = "".join(f"| `{name}` | {READ_ELSEWHERE[name]} |\n" for name in ELSEWHERE)
    return f"{SETTINGS_HEAD}{rows}{SETTINGS_MIDDLE}{others}{SETTINGS_TAIL}\n{NOTE}"


def _default(row: Setting) -> str:
    if isinstance(row.default, bool):
        return f"`{row.default:d}`"
    if isinstance(row.default, tuple):
        return f"`{','.join(row.default)}`"
    return f"`{row.default}`" if str(row.default) else "empty"


def cli_page() -> str:
    """docs/cli.md."""
    sections = "\n".join(_section(words, command) for words, command in _commands(("pyro",), pyro))
    return f"{CLI_HEAD}\n{sections}\n{NOTE}"


def _commands(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """*command* and all below it, in the order of the help."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=" ".join(words))
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _commands((*words, name), child)


def _section(words: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(words))
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    parts = [
        f"{'#' * (len(words) + 1)} {' '.join(words)}\n",
        f"```text\n{usage}\n```\n",
        *_paragraphs(inspect.cleandoc(command.help or "")),
    ]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [_row(*record) for option in options if (record := option.get_help_record(context))]
    if rows:
        parts.append(f"| option | what it does |\n|---|---|\n{''.join(rows)}")
    return "\n".join(parts)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        body = paragraph.strip("\n")
        if body.startswith(BLOCK):
            title, *lines = body.removeprefix(f"{BLOCK}\n").splitlines()
            commands = "\n".join(line.strip() for line in lines)
            yield f"{title.strip()}\n\n```text\n{commands}\n```\n"
        else:
            yield f"{' '.join(body.split())}\n"


def _row(names: str, text: str) -> str:
    shown = " ".join(text.split()).replace("|", "\\|")
    return f"| `{names}` | {shown} |\n"


PAGES = {"settings.md": settings_page, "cli.md": cli_page, "public-contract.md": contract_page}


def stale() -> list[str]:
    """The pages that differ from what the code says."""
    return [name for name, page in PAGES.items() if _present(DOCS / name) != page()]


def _present(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def main(arguments: list[str]) -> int:
    """Write all pages, or with ``--check`` change nothing; 1 when a page is stale."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: generate_docs.py [--check]\n")
        return 2
    if arguments:
        names = stale()
        sys.stdout.write("".join(f"docs/{name} is not up to date: run scripts/generate_docs.py\n" for name in names))
        return 1 if names else 0
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
