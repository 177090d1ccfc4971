"""Fetch: the one module of the client that connects out.

    fetcher = HttpFetcher()
    raw = fetcher.get("http://127.0.0.1:8000/log/checkpoint", max_bytes=NOTE_MAX_BYTES)
    tile = fetcher.get(url, max_bytes=8192, missing_ok=True)      # None: the server says 404
    answer = fetcher.post(url, body, content_type="text/plain")   # any status; the caller reads it

Everybody else takes a `Fetcher`, so a test hands in a world in memory and nothing else changes.

Promises: an answer is never longer than `max_bytes`, before and after decompression, and never takes longer than
the deadline, wherever it drips: in its headers, its body, the lines between two chunks, or inside of gzip that
never gives a byte. It is whole, also where it says nothing of its length. A redirect is followed only within the
same scheme, host and port; whatever goes wrong on the way is a NetworkError that names the URL. Nothing fetched is
believed: that is the caller's business.

Files of any size come in pieces (`chunks`, for the proxy), under the same promises.

A connection that was kept alive may be closed by the server at the moment it is used again. Where no byte of an
answer came, the request is made again on another connection, if it is a GET or the caller says that twice is like
once (`idempotent`: an upload of the same bytes). On a new connection nothing is tried twice.

A registry that is not for everybody asks who we are, and is asked again with what this machine has for that origin
(credentials.py), from then on at once; nobody else ever sees it, also after a redirect or from a mirror.

Not promised: secrecy. TLS is checked like everywhere else, and no verdict depends on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

from countermark import clientcerts
from countermark.credentials import Credentials, Origin, load, origin
from countermark.disk import config_home
from countermark.errors import NetworkError, UsageError
from countermark.httpbody import CHUNK, pieces
from countermark.limits import (
    CONNECT_TIMEOUT,
    DOWNLOAD_SLOWEST,
    FETCH_DEADLINE,
    FETCH_MAX_BYTES,
    READ_TIMEOUT,
)
from countermark.patience import Patience, current, impatient_pools
from countermark.values import dataclass, field

if TYPE_CHECKING:
    import urllib3

USER_AGENT = "countermark/0.1.0"
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Answer:
    """What a server said: status, reason phrase, headers (lower-case names) and the whole body."""

    status: int
    reason: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class StatusError(NetworkError):
    """The server answered, and its answer was not the file we asked for."""

    def __init__(self, url: str, answer: Answer) -> None:
        told = f"{url} answered {answer.status} {answer.reason}".rstrip()
        super().__init__(told, hint=clientcerts.hint(url, answer.status, answer.body))
        self.answer = answer


class Fetcher(Protocol):
    """What the client needs from a network; `tests/simulator.py` is the other implementation."""

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        """The body of a 200 answer; None for a 404 when `missing_ok`; NetworkError for everything else."""

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = FETCH_MAX_BYTES,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Answer:
        """Whatever the server answered; NetworkError only when it could not be reached or understood.

        `idempotent`: making the request twice is like making it once.
        """


class FileFetcher(Fetcher, Protocol):
    """A Fetcher that can also bring what is too large for memory."""

    def chunks(self, url: str, *, max_bytes: int) -> Iterator[bytes]:
        """The body of a 200 answer, piece by piece; NetworkError for everything else, also half-way."""


class HttpFetcher:
    """The real network, through urllib3. Connections are kept alive; safe to share between threads."""

    def __init__(
        self,
        *,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        read_timeout: timedelta = READ_TIMEOUT,
        deadline: timedelta = FETCH_DEADLINE,
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials`: for whom what is shown; None for those of this user (credentials.py)."""
        self._connect_timeout = connect_timeout.total_seconds()
        self._read_timeout = read_timeout.total_seconds()
        self._deadline = deadline.total_seconds()
        self._pools: dict[tuple[str | None, tuple[str, str] | None], urllib3.PoolManager] = {}
        self._given = credentials
        self._asked_for: set[Origin] = set()  # who wants to know who we are

    def close(self) -> None:
        """Close the connections that are kept alive; the next request opens new ones."""
        for pool in list(self._pools.values()):
            pool.clear()

    def get(
        self,
        url: str,
        *,
        max_bytes: int = FETCH_MAX_BYTES,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> bytes | None:
        answer = self._get(url, headers or {}, max_bytes=max_bytes)
        if answer.status == 200:
            return answer.body
        if answer.status == 404 and missing_ok:
            return None
        raise StatusError(url, answer)

    def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = FETCH_MAX_BYTES,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> Answer:
        sent = {"Content-Type": content_type, **(headers or {})}
        deadline = time.monotonic() + (timeout or self._deadline)
        _check_url(url)
        return self._once(
            "POST", url, body, sent, max_bytes=max_bytes, deadline=deadline, idempotent=idempotent
        )

    def chunks(self, url: str, *, max_bytes: int) -> Iterator[bytes]:
        """A slow line may take longer for a large file, but never slower than DOWNLOAD_SLOWEST."""
        seconds = self._deadline + max_bytes / DOWNLOAD_SLOWEST
        deadline = time.monotonic() + seconds
        _check_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"Accept-Encoding": "identity"}
            with self._opened("GET", url, None, sent, deadline=deadline) as response:
                if response.status == 200:
                    yield from pieces(response, url, max_bytes=max_bytes, deadline=deadline)
                    return
                body = b"".join(pieces(response, url, max_bytes=CHUNK, deadline=deadline))
                answer = Answer(response.status, response.reason or "", _headers(response), body)
            if answer.status not in REDIRECTS:
                raise StatusError(url, answer)
            url = _redirect(url, answer)
        raise NetworkError(f"{url}: more than {MAX_REDIRECTS} redirects")

    def _get(self, url: str, headers: Mapping[str, str], *, max_bytes: int) -> Answer:
        """One request and the redirects it leads to, all within the deadline."""
        deadline = time.monotonic() + self._deadline
        _check_url(url)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once("GET", url, None, headers, max_bytes=max_bytes, deadline=deadline)
            if answer.status not in REDIRECTS:
                return answer
            url = _redirect(url, answer)
        raise NetworkError(f"{url}: more than {MAX_REDIRECTS} redirects")

    def _once(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        max_bytes: int,
        deadline: float,
        idempotent: bool = True,
    ) -> Answer:
        with self._opened(method, url, body, headers, deadline=deadline, idempotent=idempotent) as response:
            data = b"".join(pieces(response, url, max_bytes=max_bytes, deadline=deadline))
            return Answer(response.status, response.reason or "", _headers(response), data)

    @contextlib.contextmanager
    def _opened(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        deadline: float,
        idempotent: bool = True,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """An answer whose body is still to be read; whatever goes wrong with it is a NetworkError."""
        import urllib3  # noqa: PLC0415  (lazy: `--help` and offline checks need no network code)

        current.patience = patience = Patience(deadline)
        try:
            response = self._answered(method, url, body, headers, patience, idempotent=idempotent)
            try:
                yield response
                patience.check(url)  # what was cut off there looks like a body without a length that ended
            except BaseException:
                response.close()  # half-read: the connection can't be reused
                raise
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            patience.check(url)
            raise NetworkError(f"cannot reach {url}: {_plain(error)}") from error
        except (OSError, ValueError) as error:
            patience.check(url)
            raise NetworkError(f"cannot reach {url}: {error}") from error
        finally:
            patience.end()

    def _answered(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        patience: Patience,
        *,
        idempotent: bool,
    ) -> urllib3.BaseHTTPResponse:
        """The beginning of an answer; anew as long as it is a kept-alive connection that turns out to be closed."""
        import urllib3  # noqa: PLC0415

        while True:
            left = patience.left
            timeout = urllib3.Timeout(
                connect=min(self._connect_timeout, left), read=min(self._read_timeout, left), total=None
            )
            shown = self._shown(url, headers)
            try:
                response = self._pool(url).request(
                    method,
                    url,
                    body=body,
                    headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers, **shown},
                    preload_content=False,
                    redirect=False,
                    retries=False,
                    timeout=timeout,
                )
                asks = response.status == 401 or (
                    response.status == 403 and "WWW-Authenticate" in response.headers
                )
                if not asks or shown or not self._may_show(url, headers):
                    return response
                response.close()  # refused before it was looked at: making it anew changes nothing
            except urllib3.exceptions.ProtocolError as error:
                # urllib3 has dropped that connection: with each turn there is one less that can be stale.
                if not (idempotent and patience.is_reused and _was_closed(error)):
                    raise
                patience.check(url)

    def _pool(self, url: str) -> urllib3.PoolManager:
        import urllib3  # noqa: PLC0415

        name = proxy, certificate = _proxy_for(url), self._credentials.certificate(url)
        if name not in self._pools:
            own: dict[str, Any] = {}
            if certificate is not None:
                clientcerts.check(certificate, url)
                own = {"cert_file": certificate[0], "key_file": certificate[1]}
            own["maxsize"] = 8
            pool = urllib3.ProxyManager(proxy, **own) if proxy else urllib3.PoolManager(**own)
            pool.pool_classes_by_scheme = impatient_pools()
            self._pools[name] = pool
        return self._pools[name]

    @property
    def _credentials(self) -> Credentials:
        if self._given is None:
            self._given = load(os.environ, config_home())
        return self._given

    def _shown(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Who we are, for an origin that has asked; a request that says it by itself is left as it is."""
        if "Authorization" in headers or origin(url) not in self._asked_for:
            return {}
        return self._credentials.headers(url)

    def _may_show(self, url: str, headers: Mapping[str, str]) -> bool:
        """Whether we have something for this origin, which has just asked; from now on it is sent at once."""
        if "Authorization" in headers or not self._credentials.headers(url):
            return False
        self._asked_for.add(origin(url))
        return True


def _headers(response: urllib3.BaseHTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _redirect(url: str, answer: Answer) -> str:
    """Where a redirect leads, if it stays on the same host."""
    target = urljoin(url, answer.headers.get("location", ""))
    if origin(target) != origin(url) or origin(target)[0] == "":
        raise NetworkError(f"{url} redirects to another host: {target}")
    return target


def decode_json(raw: bytes) -> Any:
    """JSON that somebody sent; ValueError for anything else, however deep it is nested."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f'"{url}" is not an http or https URL')


def _proxy_for(url: str) -> str | None:
    """The proxy the environment names for this URL; none for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127."):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    return None if proxy_bypass(host) else getproxies().get(parts.scheme)


def _was_closed(error: urllib3.exceptions.ProtocolError) -> bool:
    """Whether the other side had hung up before a byte of its answer came (http.client says so by these)."""
    causes = (error.__cause__, error.__context__, *error.args)
    return any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in causes)


def _plain(error: Exception) -> str:
    """urllib3's messages lead with the connection object; people need the end of them."""
    text = str(getattr(error, "reason", None) or error)
    return text.rsplit(">: ", 1)[-1].rsplit("): ", 1)[-1]
