"""What an image says about how it wants to be run."""

import re
import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pyro_mcp.environments.oci.media import document
from pyro_mcp.errors import ImageRefused, InvalidRequest
from pyro_mcp.model import USER, CommandSpec

SHELL = ("/bin/sh", "-c")  # not a login shell: /etc/profile would replace the image's PATH
DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The defaults of commands in an image. *shell*: whether the image has a /bin/sh."""

    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = ""
    command: tuple[str, ...] = ()
    shell: bool = True

    def prepared(self, spec: CommandSpec) -> CommandSpec:
        """*spec* as this image runs it. What the caller said goes before what the image says.

        Without a shell in the image the words of the command are the program and its arguments.
        """
        argv = spec.argv
        if not argv and self.shell:
            argv = (*SHELL, spec.command)
        elif not argv:
            argv = _words(spec.command)
        return replace(
            spec, argv=argv, env={**self.env, **spec.env}, cwd=spec.cwd or self.cwd, user=spec.user or self.user
        )

    def as_dict(self) -> dict[str, Any]:
        """The form that is kept in a record."""
        return {**asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "ImageConfig":
        """From a record. Raises ValueError when it is none of ours."""
        env, command = value.get("env"), value.get("command")
        if (
            not isinstance(env, dict)
            or not all(isinstance(text, str) for text in (*env, *env.values()))
            or not isinstance(command, list)
            or not all(isinstance(word, str) for word in command)
            or not isinstance(value.get("cwd"), str)
            or not isinstance(value.get("user"), str)
            or not isinstance(value.get("shell"), bool)
        ):
            raise ValueError("this is no configuration of an image")
        return cls(env, value["cwd"], value["user"], tuple(command), value["shell"])


@dataclass(frozen=True, slots=True)
class Described:
    """The configuration document of an image: how to run it, and the digest of each layer once it is unpacked."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    labels: dict[str, str]


def read_config(data: bytes) -> Described:
    """Read the configuration of an image. Raises ImageRefused for one that cannot be run here."""
    value = document(data, "the image's configuration")
    system, machine = value.get("os", "linux"), value.get("architecture", "amd64")
    if (system, machine) not in (("linux", "amd64"), ("linux", "x86_64")):
        raise ImageRefused(f"the image is for {system!r:.20}/{machine!r:.20}, not for linux/amd64")
    inner = value.get("config") or {}
    if not isinstance(inner, dict):
        raise ImageRefused("the image's configuration is damaged")
    rootfs = value.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not all(isinstance(item, str) and DIFF_ID.fullmatch(item) for item in ids):
        raise ImageRefused("the image's configuration does not name its layers")
    return Described(_defaults(inner), tuple(ids), _labels(inner))


def _defaults(inner: dict[str, Any]) -> ImageConfig:
    env = {}
    for entry in _texts(inner, "Env"):
        name, equals, text = entry.partition("=")
        if equals and name and "\0" not in entry:
            env[name] = text
    cwd, user = inner.get("WorkingDir") or "", inner.get("User") or ""
    if not isinstance(cwd, str) or not isinstance(user, str) or "\0" in cwd or len(cwd) > 4095:
        raise ImageRefused("the image's working directory or user is not acceptable")
    if user and not USER.fullmatch(user):
        raise ImageRefused(f"the image wants to run as {user!r:.60}, which is neither a name nor a number")
    if cwd and not cwd.startswith("/"):
        cwd = f"/{cwd}"
    return ImageConfig(env, cwd, user, (*_texts(inner, "Entrypoint"), *_texts(inner, "Cmd")))


def _texts(inner: dict[str, Any], name: str) -> list[str]:
    value = inner.get(name) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ImageRefused(f"the image's {name} is not a list of words")
    return value


def _labels(inner: dict[str, Any]) -> dict[str, str]:
    value = inner.get("Labels")
    rows = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in rows if isinstance(key, str) and isinstance(text, str)}


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise InvalidRequest(
            f"this image has no shell, and {command!r:.80} cannot be split into words: {error}",
            remedy="Give the program and its arguments as words of their own after `--`.",
        ) from error
    if not words:
        raise InvalidRequest("command must not be empty")
    return words
