"""Which packages are in an image, by the lists that Debian's and Alpine's package managers keep in it."""

from pathlib import Path

from pyro_mcp.host import apt, proc
from pyro_mcp.host.deadline import Deadline

DPKG_STATUS = "var/lib/dpkg/status"
APK_INSTALLED = "lib/apk/db/installed"


def packages_of(image: Path, deadline: Deadline) -> dict[str, str]:
    """The packages in *image*, a squashfs that was made here, with their versions; empty when nobody keeps a list."""
    return _dpkg(_text(image, DPKG_STATUS, deadline)) or _apk(_text(image, APK_INSTALLED, deadline))


def _text(image: Path, path: str, deadline: Deadline) -> str:
    done = proc.run(["unsquashfs", "-cat", str(image), path], deadline, check=False)
    return done.stdout.decode(errors="replace") if done.status == 0 else ""


def _dpkg(text: str) -> dict[str, str]:
    found = {
        fields["package"]: fields["version"]
        for fields in apt.paragraphs(text)
        if fields.get("status", "").endswith(" installed") and {"package", "version"} <= fields.keys()
    }
    return dict(sorted(found.items()))


def _apk(text: str) -> dict[str, str]:
    """Lines ``P:name`` and ``V:version``, packages parted by blank lines; the case of the letter matters."""
    found, fields = {}, dict[str, str]()
    for line in [*text.splitlines(), ""]:
        if line:
            fields[line[:2]] = line[2:]
        else:
            if {"P:", "V:"} <= fields.keys():
                found[fields["P:"]] = fields["V:"]
            fields = {}
    return dict(sorted(found.items()))
