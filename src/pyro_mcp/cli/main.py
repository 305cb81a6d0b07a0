"""The ``pyro`` command: verbs load when they are used; every failure ends here as a message and an exit code."""

import errno
import importlib
import os
import signal
from collections.abc import Sequence

import click

from pyro_mcp import __version__
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group, VerbMissing
from pyro_mcp.errors import EXIT_FAILURE, InvalidRequest, PyroError

# verb: (module that holds a click command named ``command``, its line in the help)
VERBS = {
    "completion": ("pyro_mcp.cli.completion", "Print what makes a shell complete pyro's verbs, options and names."),
    "config": ("pyro_mcp.cli.config", "Show the settings in force, and where each comes from."),
    "demo": ("pyro_mcp.cli.demo", "Run one command in a fresh microVM and show the whole result."),
    "doctor": ("pyro_mcp.cli.doctor", "Say what this host can run, what is missing, and how to get it."),
    "env": ("pyro_mcp.cli.env", "List, pull, inspect and prune environments."),
    "mcp": ("pyro_mcp.cli.mcp", "Serve pyro to MCP clients, and configure them."),
    "runtime": ("pyro_mcp.cli.runtime", "List, install and verify what machines are started from."),
    "run": ("pyro_mcp.cli.run", "Run a command in a fresh microVM."),
    "task": ("pyro_mcp.cli.task", "Keep a machine for many commands: create, sync, exec, logs, delete."),
    "template": ("pyro_mcp.cli.template", "List, build and prune the templates machines start from."),
    "setup": ("pyro_mcp.cli.setup", "Install the host packages pyro needs."),
}
USAGE_ERROR = 2
COMPLETE = "_PYRO_COMPLETE"  # set by a shell that asks what may come next
FAILURE = 1
# These speak for the guest's command in their exit code, so pyro's own failures get one apart.
GUEST_VERBS = (["run"], ["task", "exec"], ["task", "attach"], ["task", "wait"])


class Verbs(Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs, in the order of the help."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the verb's module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The list of verbs, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name][1]) for name in sorted(VERBS)])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="pyro %(version)s")
def pyro() -> None:
    """Run commands in ephemeral microVMs from curated Linux environments.

    \b
    Examples:
      pyro run debian:12 -- git --version
      pyro doctor
      pyro env list

    \b
    Exit codes:
      of run, task exec, attach and wait: the command's own; 124: timeout; 125: pyro itself failed
      of other verbs: 0: done; 1: failed
      of all: 2: the command line could not be understood; 130: interrupted
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


def run(args: Sequence[str]) -> int:
    """Carry out one command line; its exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a closed pipe is an error to handle, not a death in mid-clean-up
    render.be_quiet(wanted=False)
    if COMPLETE in os.environ:
        importlib.import_module("pyro_mcp.cli.completion")  # it knows the shells
    words = list(args)
    as_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    guest_verb = any(words[: len(verb)] == verb for verb in GUEST_VERBS)
    try:
        return _carry_out(words, as_json=as_json, guest_verb=guest_verb)
    except render.OutputClosed as error:
        return error.exit_code
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except SystemExit:  # what click makes of a closed pipe; what a shell asked for has its own end
        if COMPLETE in os.environ:
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _output_failed(render.OutputFailed(f"the output cannot be written: {error.strerror}"))
    except render.OutputFailed as error:
        return _output_failed(error, EXIT_FAILURE if guest_verb else FAILURE)


def _carry_out(words: list[str], *, as_json: bool, guest_verb: bool) -> int:
    try:
        result = pyro.main(words, prog_name="pyro", standalone_mode=False)
    except click.UsageError as error:
        return _usage(error, as_json=as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        render.error_line("interrupted")
        return 128 + signal.SIGINT
    except (render.OutputClosed, render.OutputFailed):
        raise
    except PyroError as error:
        render.failure(error, as_json=as_json)
        if error.exit_code != EXIT_FAILURE:
            return error.exit_code
        return EXIT_FAILURE if guest_verb else FAILURE
    return result if isinstance(result, int) else 0


def _output_failed(error: render.OutputFailed, code: int = FAILURE) -> int:
    """There is only stderr left to say it on."""
    render.failure(error, as_json=False)
    return code


def _usage(error: click.UsageError, *, as_json: bool) -> int:
    if as_json:
        render.failure(InvalidRequest(error.format_message(), remedy=_help_hint(error)), as_json=True)
    elif isinstance(error, VerbMissing) and error.ctx:
        render.usage("", error.format_message(), f"\n{error.ctx.get_help()}")
    else:
        render.usage(error.ctx.get_usage() if error.ctx else "", error.format_message(), _help_hint(error))
    return USAGE_ERROR


def _help_hint(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx:
        what = {"run": "run ENV", "exec": "task exec TASK"}.get(error.ctx.command.name or "")
        if what:
            return f"Options of the command itself go behind `--`: pyro {what} -- COMMAND {error.option_name}"
    return f"Try `{error.ctx.command_path if error.ctx else 'pyro'} --help`."
