"""Who to be at a registry: environment variables, docker's configuration, docker's credential helpers."""

import base64
import binascii
import contextlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.environments.oci.reference import DOCKER_HUB, HUB_NAMES
from pyro_mcp.errors import PyroError, RegistryFault
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline

HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HELPER_SECONDS = 20.0
CONFIG_BYTES_MOST = 1 << 20
HUB_KEY = "https://index.docker.io/v1/"  # what docker login writes for docker.io
TOKEN_USER = "<token>"  # what a helper answers with when the secret is an identity token  # noqa: S105
# What helpers need to find a keyring or a login of the user.
FOR_HELPERS = ("DOCKER_CONFIG", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DISPLAY")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or in place of both an identity *token*. Never printed."""

    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"

    @property
    def basic(self) -> str:
        """The value of a header of the scheme Basic."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def credentials_for(registry: str, environ: Mapping[str, str], *, named_by_user: bool) -> Credentials | None:
    """The credentials for *registry*; ``None``: be nobody.

    ``OCI_REGISTRY_USERNAME`` and ``_PASSWORD`` do not say for which registry they are. So they go only to one the user
    has named in this very call (*named_by_user*), or, with ``OCI_REGISTRY_HOST``, to that one alone.
    """
    own = environ.get("OCI_REGISTRY_HOST", "")
    if registry == own or (named_by_user and not own):
        user, password = environ.get("OCI_REGISTRY_USERNAME", ""), environ.get("OCI_REGISTRY_PASSWORD", "")
        if registry == DOCKER_HUB:
            user = user or environ.get("DOCKERHUB_USERNAME", "")
            password = password or environ.get("DOCKERHUB_TOKEN", "")
        if user and password:
            return Credentials(user, password)
    if registry == DOCKER_HUB and environ.get("DOCKERHUB_USERNAME") and environ.get("DOCKERHUB_TOKEN"):
        return Credentials(environ["DOCKERHUB_USERNAME"], environ["DOCKERHUB_TOKEN"])
    return _of_docker(registry, environ)


def config_path(environ: Mapping[str, str]) -> Path:
    """Docker's configuration file."""
    directory = environ.get("DOCKER_CONFIG") or "~/.docker"
    return Path(directory).expanduser() / "config.json"


def _of_docker(registry: str, environ: Mapping[str, str]) -> Credentials | None:
    path = config_path(environ)
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(CONFIG_BYTES_MOST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RegistryFault(
            f"{path} cannot be read: {error}", remedy="Correct or remove it; `docker login` writes it anew."
        ) from error
    config = value if isinstance(value, dict) else {}
    keys = _keys(registry)
    helpers = config.get("credHelpers")
    for key in keys:
        helper = helpers.get(key) if isinstance(helpers, dict) else None
        if isinstance(helper, str):
            return _ask(helper, key, environ)
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        for key in keys:
            found = _ask(store, key, environ)
            if found is not None:
                return found
    return _written(config.get("auths"), keys)


def _keys(registry: str) -> list[str]:
    names = [HUB_KEY, *HUB_NAMES] if registry == DOCKER_HUB else [registry]
    return [*names, *(f"https://{name}" for name in names if "://" not in name)]


def _written(auths: object, keys: list[str]) -> Credentials | None:
    """Credentials that stand in the file itself."""
    rows = auths if isinstance(auths, dict) else {}
    for key in keys:
        row: Any = rows.get(key)
        if not isinstance(row, dict):
            continue
        token = row.get("identitytoken")
        if isinstance(token, str) and token:
            return Credentials(token=token)
        with contextlib.suppress(ValueError, binascii.Error):
            user, colon, password = base64.b64decode(str(row.get("auth", ""))).decode().partition(":")
            if user and colon:
                return Credentials(user, password.rstrip("\0"))
        if row.get("username") and row.get("password"):
            return Credentials(str(row["username"]), str(row["password"]))
    return None


def _ask(helper: str, key: str, environ: Mapping[str, str]) -> Credentials | None:
    """What a credential helper knows. Its protocol: the key on stdin, a JSON object on stdout."""
    if not HELPER.fullmatch(helper):
        raise RegistryFault(f"docker's configuration names a credential helper {helper!r:.60}, which cannot be")
    program = f"docker-credential-{helper}"
    env = {name: environ[name] for name in FOR_HELPERS if name in environ}
    env["PATH"] = proc.search_path()
    with tempfile.TemporaryFile() as question:
        question.write(key.encode())
        question.seek(0)
        try:
            done = proc.run([program, "get"], Deadline.after(HELPER_SECONDS), env=env, stdin=question, check=False)
        except PyroError as error:
            raise RegistryFault(
                f"the credential helper {program} cannot be asked: {error}",
                remedy=f"Install {program}, or remove it from {config_path(environ)}.",
            ) from error
    if done.status != 0:  # it knows no credentials, and says so in words of its own
        return None
    try:
        value = json.loads(done.stdout)
        user, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryFault(f"{program} answered what cannot be read") from error
    return Credentials(token=secret) if user == TOKEN_USER else Credentials(user, secret)
