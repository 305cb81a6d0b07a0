"""``pyro setup``: the host packages."""

import sys

import click

from pyro_mcp.cli import render
from pyro_mcp.errors import HostFault, InvalidRequest, ProgramMissing

INSTALL_SECONDS = 1800.0


@click.command("setup", short_help="Install the host packages pyro needs.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dev", is_flag=True, help="Also what pyro's own tests need.")
def command(*, yes: bool, dev: bool) -> None:
    """Show the commands that install what this host lacks, ask, and run them.

    They run as root: through sudo unless you are root.

    \b
    Examples:
      pyro setup
      pyro setup --yes
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.host import packages, proc
    from pyro_mcp.host.deadline import Deadline

    needs = packages.missing(proc.search_path(), developer=dev)
    if not needs:
        render.lines(["Nothing is missing."])
        return
    for need in needs:
        render.progress_line(f"[setup] missing: {need.program} ({need.purpose})")
    commands = packages.install_commands(needs)
    if not commands:
        raise ProgramMissing(
            f"this host has no apt-get to install {', '.join(sorted({need.package for need in needs}))} with",
            remedy="Install these programs with your system's package manager: "
            + ", ".join(need.program for need in needs),
        )
    render.progress_line("[setup] this will run:")
    for argv in commands:
        render.progress_line(f"[setup]   {proc.describe(argv)}")
    if not yes:
        _ask()
    deadline = Deadline.after(INSTALL_SECONDS)
    for argv in commands:
        proc.run(argv, deadline, env={"DEBIAN_FRONTEND": "noninteractive"})
    left = packages.missing(proc.search_path(), developer=dev)
    if left:
        raise HostFault(f"still missing after the installation: {', '.join(need.program for need in left)}")
    render.lines([f"Installed: {', '.join(sorted({need.package for need in needs}))}"])


def _ask() -> None:
    if not sys.stdin.isatty():
        raise InvalidRequest(
            "nothing was installed: there is nobody to ask", remedy="Pass --yes to install without a question."
        )
    click.confirm("Go on?", abort=True, err=True)
