"""Debian packages by the host's apt, in a private root of its lists and configuration; without privileges.

Where the archive is comes from the setting ``debian_mirror`` or from the host's own sources; pyro knows no
mirror by name. What apt fetches is always checked against the archive's signature, also where the host's
configuration would let it pass.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.errors import EnvironmentFault, OperationFailed, ProgramFailed, ProgramMissing
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, sha256_file, storage
from pyro_mcp.host.progress import Progress

SUITE = "bookworm"
POCKETS = ("", "-updates", "-security")
ARCHITECTURE = "amd64"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEYRINGS_OF_DEBIAN = re.compile(r"/[^\s,\[\]]*/debian-archive-[^\s/,\[\]]+")
UNSAFE = re.compile(r"[\s\[\]]")  # would be another word, or options, in a one-line source
ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>\S.*)")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
KERNEL_IMAGE = re.compile(r"linux-image-[0-9][a-z0-9+.-]*")
REMEDY = "Set PYRO_DEBIAN_MIRROR to the URL of a Debian archive that this host reaches, then try again."
# apt.conf(5). The host's own apt.conf.d stays in force (proxies, timeouts); read after it, this file has the
# last word.
CONFIGURATION = """\
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::archives "{root}/cache/archives";
Dir::Log "{root}/log";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures "{architecture}";
APT::Sandbox::User "root";
APT::Default-Release "";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""


def sources_for(
    suite: str = SUITE, *, mirror: str = "", etc: Path = Path("/etc/apt"), keyring: Path = KEYRING
) -> list[str]:
    """One-line ``deb [...] URI SUITE main`` entries for *suite*, its updates and its security fixes.

    They are ready for mmdebstrap. From *mirror* (the setting ``debian_mirror``; it has no security pocket)
    when it is given, else from the host's own apt sources. Raises EnvironmentFault, whose remedy names
    PYRO_DEBIAN_MIRROR, when neither has *suite*; ProgramMissing without the keyring.
    """
    if mirror:
        # The security fixes of a release live in an archive of their own, which a mirror's URL does not name.
        if UNSAFE.search(mirror):
            raise EnvironmentFault(f"{mirror!r:.200} cannot be the URL of a Debian archive", remedy=REMEDY)
        found = [_Source(mirror, f"{suite}{pocket}", ("main",), "") for pocket in POCKETS if pocket != "-security"]
    else:
        found = [source for source in _host_sources(etc) if source.is_debian(suite)]
    if not any(source.suite == suite for source in found):
        raise EnvironmentFault(f"this host's apt sources have no Debian {suite}", remedy=REMEDY)
    lines = [source.line(keyring) for source in found]
    if any(str(keyring) in line for line in lines) and not keyring.exists():
        raise ProgramMissing(
            f"{keyring} is not there: packages could not be checked",
            remedy="Install the package debian-archive-keyring.",
        )
    return list(dict.fromkeys(lines))


@dataclass(frozen=True, slots=True)
class _Source:
    """One archive, suite and its components; *signed_by* as the host has it, maybe empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str

    def is_debian(self, suite: str) -> bool:
        """Whether this is *suite* of Debian itself: nothing under other keys than Debian's is let in."""
        if self.suite not in {f"{suite}{pocket}" for pocket in POCKETS} or "main" not in self.components:
            return False
        if UNSAFE.search(self.uri):
            return False
        if self.signed_by.startswith("/"):
            return all(KEYRINGS_OF_DEBIAN.fullmatch(name) for name in _words(self.signed_by))
        return "debian" in self.uri

    def line(self, keyring: Path) -> str:
        """The one-line form. Without a keyring file of its own the entry gets Debian's."""
        signed_by = ",".join(_words(self.signed_by)) if self.signed_by.startswith("/") else str(keyring)
        return f"deb [arch={ARCHITECTURE} signed-by={signed_by}] {self.uri} {self.suite} main"


def _words(text: str) -> list[str]:
    return re.split(r"[\s,]+", text.strip())


def _host_sources(etc: Path) -> Iterator[_Source]:
    """What apt itself would read (sources.list(5)): sources.list, then the parts by name."""
    parts = etc / "sources.list.d"
    with storage(f"reading the apt sources in {etc}"):
        names = sorted(parts.iterdir()) if parts.is_dir() else []
        for path in [etc / "sources.list", *names]:
            if not path.is_file():
                continue
            text = path.read_text(errors="replace")
            if path.suffix == ".list":
                yield from _one_line(text)
            elif path.suffix == ".sources":
                yield from _deb822(text)


def _one_line(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        entry = ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if entry is None:
            continue
        options = dict(word.partition("=")[::2] for word in (entry["options"] or "").split())
        yield _Source(entry["uri"], entry["suite"], tuple(entry["components"].split()), options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[_Source]:
    for fields in paragraphs(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
            "0",
            "off",
        ):
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield _Source(uri, suite, components, fields.get("signed-by", "").strip())


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822(5) text; names in lower case, continuation lines joined by a newline."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.strip()
        else:
            key, _, value = line.partition(":")
            name = key.strip().lower()
            fields[name] = value.strip()


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A package file that was compared with apt's verified metadata. *size* is in bytes."""

    path: Path
    package: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """The newest version of a package in the archive, by its verified metadata."""

    package: str
    version: str
    sha256: str
    size: int
    depends: str

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """From what ``apt-cache show`` prints for one version; raises EnvironmentFault for anything else."""
        fields = next(paragraphs(text), {})
        package, version, digest, size = (fields.get(name, "") for name in ("package", "version", "sha256", "size"))
        if (
            not PACKAGE.fullmatch(package)
            or not version
            or not re.fullmatch("[0-9a-f]{64}", digest)
            or not re.fullmatch("[0-9]+", size)
        ):
            raise EnvironmentFault("apt's metadata of a package is not complete", details=text.splitlines()[:20])
        return cls(package, version, digest, int(size), fields.get("depends", ""))

    @property
    def kernel_image(self) -> str | None:
        """For a kernel metapackage: the package with the image itself."""
        alternatives = (word.split()[0] for word in re.split(r"[,|]", self.depends) if word.strip())
        return next((name for name in alternatives if KERNEL_IMAGE.fullmatch(name)), None)


@dataclass(frozen=True, slots=True)
class Archive:
    """A Debian archive, with apt's lists and configuration in *directory*."""

    directory: Path
    deadline: Deadline
    progress: Progress

    @classmethod
    def open(cls, directory: Path, sources: Sequence[str], deadline: Deadline, progress: Progress) -> "Archive":
        """Lay out the private root in *directory* for the one-line *sources*."""
        private_directory(directory)
        with storage(f"preparing {directory}"):
            for name in ("state", "lists/partial", "cache/archives/partial", "log"):
                (directory / name).mkdir(parents=True, exist_ok=True)
            (directory / "status").touch()
            (directory / "sources.list").write_text("".join(f"{line}\n" for line in sources))
            settings = CONFIGURATION.format(root=_quotable(directory), architecture=ARCHITECTURE)
            (directory / "apt.conf").write_text(settings)
        return cls(directory, deadline, progress)

    def update(self) -> None:
        """Fetch the lists and check their signatures; raises ProgramFailed with apt's own words."""
        self.progress.phase("apt-update")
        self._run("apt-get", "-q", "update", cause="the Debian package lists could not be fetched")

    def newest(self, package: str) -> Candidate:
        """The newest version of *package*; raises ProgramFailed when the archive has none."""
        if not PACKAGE.fullmatch(package):
            raise EnvironmentFault(f"{package!r:.80} is not the name of a Debian package")
        text = self._run(
            "apt-cache",
            "show",
            "--no-all-versions",
            package,
            cause=f"the Debian archive has no package {package}",
        )
        return Candidate.parse(text.decode(errors="replace"))

    def resolve(self, package: str) -> Candidate:
        """As ``newest``; of a kernel metapackage, the newest of the kernel image it depends on."""
        found = self.newest(package)
        return self.newest(found.kernel_image) if found.kernel_image else found

    def download(self, package: str, into: Path) -> Downloaded:
        """Fetch what ``resolve`` finds into the directory *into*."""
        wanted = self.resolve(package)
        self.progress.phase("download", package=wanted.package, version=wanted.version)
        before = set(into.iterdir())
        self._run(
            "apt-get", "-q", "download", f"{wanted.package}={wanted.version}",
            cwd=into,
            on_progress=lambda: self.progress.advance(_bytes_in(into), wanted.size),
            cause=f"the Debian package {wanted.package} could not be fetched",
        )  # fmt: skip
        arrived = [path for path in into.iterdir() if path not in before and path.suffix == ".deb"]
        if len(arrived) != 1 or sha256_file(arrived[0]) != wanted.sha256:
            raise EnvironmentFault(
                f"the file of the Debian package {wanted.package} is not the one the archive signed",
                remedy="Try again.",
            )
        self.progress.advance(wanted.size, wanted.size)
        return Downloaded(arrived[0], wanted.package, wanted.version, wanted.sha256, wanted.size)

    def _run(
        self,
        program: str,
        *arguments: str,
        cause: str,
        cwd: Path | None = None,
        on_progress: Callable[[], None] | None = None,
    ) -> bytes:
        """Run an apt program in this root; its failure is told by *cause* and apt's first error line."""
        argv = [program, f"--config-file={self.directory / 'apt.conf'}", *arguments]
        done = proc.run(argv, self.deadline, cwd=cwd, check=False, on_progress=on_progress)
        if done.status != 0:
            evidence = proc.tail(done.stderr or done.stdout)
            first = next((line for line in evidence if line.startswith("E: ")), "")
            raise ProgramFailed(
                f"{cause}: {first.removeprefix('E: ') or 'apt failed'}",
                remedy=REMEDY,
                details=[f"$ {proc.describe(argv)}", *evidence],
            )
        return done.stdout


def _quotable(directory: Path) -> str:
    """*directory* as it may stand in apt.conf, which has no way to escape a quote."""
    text = str(directory.absolute())
    if re.search(r'["\\\n;]', text):
        raise OperationFailed(
            f"apt cannot work in a directory of this name: {text}",
            remedy="Set XDG_CACHE_HOME to a plainly named directory.",
        )
    return text


def _bytes_in(directory: Path) -> int:
    """How much has arrived: apt writes into the directory itself, and renames."""
    total = 0
    for path in directory.rglob("*.deb"):
        try:
            total += path.stat().st_size
        except OSError:  # renamed in this moment
            continue
    return total
