"""``pyro doctor``: what this host can run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.paths import PLATFORM

if TYPE_CHECKING:
    from pyro_mcp.engine.doctor import DoctorReport


@click.command("doctor", short_help="Say what this host can run, what is missing, and how to get it.")
@click.option("--platform", "wanted", default=PLATFORM, show_default=True, help="Platform of the guests.")
@click.option("--deep", is_flag=True, help="Boot a guest to prove it.")
@output_options
def command(wanted: str, *, deep: bool, as_json: bool) -> int:
    """Say what this host can run, what is missing, and how to get it.

    The exit code is 0 only if a guest could run (with --deep: if one did).

    \b
    Examples:
      pyro doctor
      pyro doctor --deep --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    if wanted != PLATFORM:
        raise InvalidRequest(f"platform {wanted!r:.40} is not supported", remedy=f"The one platform is {PLATFORM}.")
    report = Pyro(progress=TaggedProgress("doctor")).doctor(deep=deep)
    if as_json:
        render.result(report)
    else:
        render.lines(_lines(report))
    return 0 if report["can_run"] else 1


def _lines(report: "DoctorReport") -> Iterator[str]:
    kvm, networking, runtime, host, driver = (report[key] for key in ("kvm", "networking", "runtime", "host", "driver"))
    yield f"Platform: {report['platform']}"
    yield f"Runtime: {'PASS' if report['can_run'] else 'FAIL'}"
    answers = " ".join(f"{key}={_yes(kvm[key])}" for key in ("exists", "readable", "writable", "usable"))
    yield f"KVM: {answers}"
    if kvm.get("reason"):
        yield f"KVM is not used: {kvm['reason']}"
    if driver:
        yield f"Driver: {driver['name']} ({driver['accelerator']}; {driver['reason']})"
        yield f"Isolation: {', '.join(driver['isolation']['sandbox'])}"
        for candidate in driver["candidates"]:
            if candidate["name"] != driver["name"]:
                usable = "usable" if candidate["usable"] else "not usable"
                yield f"Driver {candidate['name']}: {usable} ({candidate['reason']})"
    if host:
        yield f"Environment cache: {host['cache_dir']} ({host['cache_free_mib']} MiB free)"
        yield f"State: {host['state_dir']} ({host['state_free_mib']} MiB free)"
        yield f"Host: Linux {host['kernel']}, {host['cpus']} CPUs, {host['memory_available_mib']} MiB of memory free"
    if runtime:
        versions = runtime["component_versions"]
        capabilities = runtime["capabilities"]
        yield f"Kernel: {versions['kernel'] or 'not built yet'} ({runtime['state']}); agent: {versions['guest_agent']}"
        yield (
            f"Capabilities: vm_boot={_yes(capabilities['supports_vm_boot'])}"
            f" guest_exec={_yes(capabilities['supports_guest_exec'])}"
            f" guest_network={_yes(capabilities['supports_guest_network'])}"
        )
    uplink = networking["uplink"] or "none"
    forwarding = _yes(networking["ip_forward_enabled"])
    yield f"Networking: tun={_yes(networking['tun_available'])} ip_forward={forwarding} uplink={uplink}"
    names = [
        f"{item['name']} [{'installed' if item['installed'] else 'not installed'}]" for item in report["environments"]
    ]
    yield f"Environments: {', '.join(names) or 'unknown'}"
    if report["deep"] is not None:
        yield f"Test guest: {'PASS' if report['deep'].get('ok') else 'FAIL'}"
    if report["findings"]:
        yield "Issues:"
        for finding in report["findings"]:
            yield f"- {finding['text']}{'' if finding['text'].endswith(('.', '?')) else '.'} {finding['remedy']}"


def _yes(value: object) -> str:
    return "yes" if value else "no"
