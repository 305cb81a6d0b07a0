"""Tokens: what a registry's challenge (``WWW-Authenticate``) asks for."""

import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

from pyro_mcp.environments.oci.credentials import Credentials
from pyro_mcp.environments.oci.transport import Transport, host_of, origin_of
from pyro_mcp.errors import RegistryFault
from pyro_mcp.host.deadline import Deadline

ANSWER_BYTES_MOST = 1 << 20
CHALLENGE = re.compile(r"\s*(?P<scheme>[A-Za-z0-9_-]+)(?P<rest>(?:\s+[A-Za-z0-9_-]+=(?:\"[^\"]*\"|[^\s,\"]+),?)*)\s*,?")
PARAMETER = re.compile(r"([A-Za-z0-9_-]+)=(?:\"([^\"]*)\"|([^\s,\"]+))")
CLIENT = "pyro-mcp"


@dataclass(slots=True)
class Authority:
    """Makes the ``Authorization`` headers for one registry; thread-safe. *plain*: the registry itself needs no TLS."""

    transport: Transport
    credentials: Credentials | None
    plain: bool
    _headers: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known(self, scope: str) -> dict[str, str]:
        """The header that was good for *scope*, if there is one."""
        value = self._headers.get(scope)
        return {"Authorization": value} if value else {}

    def answer(self, challenge: str, scope: str, url: str, deadline: Deadline, *, used: dict[str, str]) -> bool:
        """Get what *challenge* asks for; ``False`` when there is nothing better than what was *used*."""
        with self._lock:
            if self.known(scope) != used:  # another thread has just done it
                return True
            value = self._made(challenge, scope, url, deadline)
            if not value or value == used.get("Authorization"):
                return False
            self._headers[scope] = value
            return True

    def _made(self, challenge: str, scope: str, url: str, deadline: Deadline) -> str:
        parsed = {match["scheme"].lower(): _parameters(match["rest"]) for match in CHALLENGE.finditer(challenge)}
        if "bearer" in parsed:
            return f"Bearer {self._token(parsed['bearer'], scope, url, deadline)}"
        if "basic" in parsed and self.credentials is not None and self.credentials.username:
            return self.credentials.basic
        return ""

    def _token(self, parameters: dict[str, str], scope: str, url: str, deadline: Deadline) -> str:
        realm = parameters.get("realm", "")
        scheme, host, _ = origin_of(realm)
        if not host or (scheme != "https" and not (scheme == "http" and self.plain)):
            raise RegistryFault(f"{host_of(url)} sends us to {realm!r:.120} for a token, which is not taken")
        query = {"service": parameters.get("service", ""), "scope": scope, "client_id": CLIENT}
        query = {name: value for name, value in query.items() if value}
        headers, body, method = {}, None, "GET"
        who = self.credentials
        if who is not None and who.token:
            method = "POST"
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urllib.parse.urlencode({**query, "grant_type": "refresh_token", "refresh_token": who.token}).encode()
        else:
            realm += ("&" if "?" in realm else "?") + urllib.parse.urlencode(query)
            if who is not None:
                headers["Authorization"] = who.basic
        answer = self.transport.request(method, realm, headers=headers, body=body, deadline=deadline)
        try:
            if answer.status != 200:
                raise RegistryFault(
                    f"{host_of(realm)} gives no token: status {answer.status}",
                    remedy="Check your login (`docker login`), or OCI_REGISTRY_USERNAME and OCI_REGISTRY_PASSWORD.",
                )
            data = answer.body(ANSWER_BYTES_MOST, "the token")
        finally:
            answer.close()
        return _token_in(data, host_of(realm))


def _parameters(text: str) -> dict[str, str]:
    return {name.lower(): quoted or bare for name, quoted, bare in PARAMETER.findall(text)}


def _token_in(data: bytes, host: str) -> str:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise RegistryFault(f"{host} answered what is no token") from error
    found = value.get("token") or value.get("access_token") if isinstance(value, dict) else None
    if not isinstance(found, str) or not found.isascii() or not found.isprintable():
        raise RegistryFault(f"{host} answered what is no token")
    return found
