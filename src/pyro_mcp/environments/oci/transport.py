"""HTTP for registries: retries, redirects, time-outs, proxies. The one module that imports urllib3.

urllib3 and not httpx: it has no dependencies of its own, trusts the certificates of the host (so those of a company's
proxy, too), and does nothing by itself that must not happen here: redirects and retries are ours.
"""

import contextlib
import email.utils
import random
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import urllib3
from urllib3 import exceptions as foreign

from pyro_mcp import __version__
from pyro_mcp.environments.oci.reach import require_answer
from pyro_mcp.errors import Interrupted, RegistryFault, RegistryUnreachable
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

CHUNK = 1 << 17
REDIRECTS_MOST = 5
REDIRECTED = (301, 302, 303, 307, 308)
AGAIN = (429, 500, 502, 503, 504)
CERTIFICATE_REMEDY = (
    "If the registry has a certificate of your own authority, name that authority's file in SSL_CERT_FILE."
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Patience. Times are seconds; *slow_bytes* is the least that must come within *slow_seconds*."""

    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    attempts: int = 5
    first_pause: float = 0.5
    pause_most: float = 60.0
    slow_seconds: float = 60.0
    slow_bytes: int = 64 << 10
    parallel: int = 3


class Broken(RegistryUnreachable):
    """A connection broke; the same may well succeed once more."""


class Answer:
    """A response whose body is still to be read. Close it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, tuning: Tuning) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = url
        self._raw = raw
        self._tuning = tuning

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes. Raises Broken when it stalls, crawls or is cut off."""
        began, count = time.monotonic(), 0
        with _translated(self.url):
            while data := self._raw.read1(CHUNK, decode_content=False):
                yield data
                count += len(data)
                if time.monotonic() - began > self._tuning.slow_seconds:
                    if count < self._tuning.slow_bytes:
                        raise Broken(f"{host_of(self.url)} sends almost nothing")
                    began, count = time.monotonic(), 0

    def body(self, most: int, what: str) -> bytes:
        """The whole body. Raises RegistryFault when it is longer than *most* bytes."""
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > most:
                raise RegistryFault(f"{what} from {host_of(self.url)} is larger than {most} bytes")
        return bytes(data)

    def close(self) -> None:
        """Let the connection go; one whose body was not read to its end is closed."""
        if not self._raw.closed:
            self._raw.close()
        self._raw.release_conn()


class Transport:
    """Requests to any number of hosts, from any number of threads. *stop* ends the waiting between attempts."""

    def __init__(self, tuning: Tuning, stop: threading.Event | None = None) -> None:
        self.tuning = tuning
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._reached: set[tuple[str, str, int | None]] = set()

    def close(self) -> None:
        """Close all connections."""
        for manager in self._pools.values():
            for key in list(manager.pools.keys()):
                # clear() alone leaves it to the garbage collector, and an error with its frames may keep a pool alive
                manager.pools[key].close()
            manager.clear()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        deadline: Deadline,
        body: bytes | None = None,
        attempts: int = 0,
        stall_seconds: float = 0,
    ) -> Answer:
        """One request, redirects followed (GET and HEAD), tried again when that may help.

        The answer's status may be any; its caller closes it. The header ``Authorization`` goes to the host of *url*
        alone. Raises RegistryUnreachable, RegistryFault, Interrupted.
        """
        last = attempts or self.tuning.attempts
        for attempt in range(1, last + 1):
            try:
                answer = self._follow(method, url, dict(headers), body, (deadline, stall_seconds))
            except Broken:
                if attempt == last:
                    raise
                self.pause(attempt, None, deadline)
                continue
            if answer.status not in AGAIN or attempt == last:
                return answer
            wait = retry_after(answer.headers.get("Retry-After"))
            if wait is not None and wait > min(self.tuning.pause_most, deadline.remaining):
                return answer
            answer.close()
            self.pause(attempt, wait, deadline)
        raise AssertionError("there is always a last attempt")

    def pause(self, attempt: int, wanted: float | None, deadline: Deadline) -> None:
        """Wait before the attempt after *attempt*: what the registry asked for, else twice as long each time."""
        seconds = wanted if wanted is not None else self.tuning.first_pause * 2 ** (attempt - 1)
        jitter = 1 + random.random() / 4  # noqa: S311 - only so that many clients do not come back together
        if until(self._stop.is_set, deadline.sooner(min(seconds * jitter, self.tuning.pause_most))):
            raise Interrupted("the transfer was stopped")
        deadline.check("talking to the registry", RegistryUnreachable)

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, patience: tuple[Deadline, float]
    ) -> Answer:
        for _ in range(REDIRECTS_MOST):
            answer = self._once(method, url, headers, body, patience)
            if answer.status not in REDIRECTED or method not in ("GET", "HEAD"):
                return answer
            answer.close()
            target = joined(url, answer.headers.get("Location", ""))
            if origin_of(target)[0] not in ("http", "https") or (origin_of(url)[0], origin_of(target)[0]) == (
                "https",
                "http",
            ):
                raise RegistryFault(f"{host_of(url)} redirects to {target!r:.120}, which is not taken")
            if origin_of(target) != origin_of(url):
                headers.pop("Authorization", None)  # for the registry's eyes only
            url = target
        raise RegistryFault(f"{host_of(url)} redirects again and again")

    def _once(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, patience: tuple[Deadline, float]
    ) -> Answer:
        deadline, stall_seconds = patience
        deadline.check("talking to the registry", RegistryUnreachable)
        pool = self._pool(url)
        timeout = urllib3.Timeout(
            connect=deadline.sooner(self.tuning.connect_seconds).remaining,
            read=deadline.sooner(stall_seconds or self.tuning.stall_seconds).remaining,
        )
        with _translated(url):
            raw = pool.request(
                method,
                url,
                headers={"User-Agent": f"pyro-mcp/{__version__}", "Accept-Encoding": "identity", **headers},
                body=body,
                timeout=timeout,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        return Answer(raw, url, self.tuning)

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections for *url*: through a proxy if the environment names one for it."""
        proxy = _proxy_for(url)
        target = proxy or url
        with self._lock:
            known = origin_of(target) in self._reached
            pool = self._pools.get(proxy)
            if pool is None:
                pool = self._pools[proxy] = _new_pool(proxy)
        if not known:  # the system's resolver knows no time-out, and a name may have many silent addresses
            scheme, name, port = origin_of(target)
            require_answer(name, port or (443 if scheme == "https" else 80), self.tuning.connect_seconds)
            self._reached.add(origin_of(target))
        return pool


def host_of(url: str) -> str:
    """The host and port of *url*."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def joined(url: str, target: str) -> str:
    """*target*, which may be relative, as seen from *url*."""
    try:
        return urllib.parse.urljoin(url, target)
    except ValueError as error:
        raise RegistryFault(f"{target!r:.120} is not an address") from error


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of *url*: who gets what is sent there."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError as error:
        raise RegistryFault(f"{url!r:.120} is not an address") from error


def retry_after(text: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds them or a date; ``None`` when there is none that is valid."""
    if text is None:
        return None
    if text.strip().isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _new_pool(proxy: str) -> urllib3.PoolManager:
    context = ssl.create_default_context()
    if not proxy:
        return urllib3.PoolManager(num_pools=8, maxsize=8, ssl_context=context)
    parts = urllib.parse.urlsplit(proxy)
    user, password = (urllib.parse.unquote(text or "") for text in (parts.username, parts.password))
    headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
    return urllib3.ProxyManager(proxy, num_pools=8, maxsize=8, ssl_context=context, proxy_headers=headers)


def _proxy_for(url: str) -> str:
    """The proxy that the usual variables name for *url*; empty for none."""
    scheme, host, _ = origin_of(url)
    if urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies_environment()
    proxy = proxies.get(scheme) or proxies.get("all") or ""
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Translate what urllib3 and sockets raise."""
    host = host_of(url)
    try:
        yield
    except foreign.SSLError as error:
        if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
            raise PlainHttp(f"{host} does not speak TLS") from error
        raise RegistryFault(f"{host} has no valid certificate: {_reason(error)}", remedy=CERTIFICATE_REMEDY) from error
    except foreign.ProxyError as error:
        raise RegistryUnreachable(f"the proxy does not let us to {host}: {_reason(error)}") from error
    except (foreign.NewConnectionError, foreign.ConnectTimeoutError) as error:
        raise Broken(f"{host} cannot be reached: {_reason(error)}") from error
    except foreign.ReadTimeoutError as error:
        raise Broken(f"{host} has stopped answering") from error
    except foreign.HTTPError as error:
        raise Broken(f"the connection to {host} broke: {_reason(error)}") from error
    except (OSError, ValueError) as error:
        raise RegistryFault(f"{host} cannot be asked: {error}") from error


class PlainHttp(RegistryFault):
    """The server was asked with TLS and speaks none."""


def _reason(error: Exception) -> str:
    text = str(error.__cause__ or error)
    return text.rpartition("): ")[2][:200]
