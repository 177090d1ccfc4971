"""Credentials: what this machine shows to a registry that is not for everybody, and to nobody else.

    COUNTERMARK_READ_TOKENS="https://registry.example=cmu_3q2-7w... https://other.example:8443=cmu_..."
    COUNTERMARK_CLIENT_CERTS="https://registry.example=/etc/ssl/me.pem,/etc/ssl/me.key"

Each is bound to an origin: scheme, host and port, compared whole. A token goes along with requests to that origin and
no other, not after a redirect and not to a mirror; a certificate is there for connections to it alone. `countermark
login` keeps the token that it was given for its registry in `credentials.json` in this user's home, bound alike.

    {"https://other.example:8443":{"account":"8f14...","service":"countermark https://other.example:8443"},
     "https://registry.example:443":"cmu_3q2-7w..."}

Where the system has a keyring, the file says only where in it the token lies.

Certificates that `countermark trust add` was told of are kept beside it (clientcerts.py).

Nothing here is ever printed: an error names the origin, and never the secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from countermark import clientcerts
from countermark.clientcerts import Certificate
from countermark.errors import UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES
from countermark.secretstore import Absent, find_keyring
from countermark.values import dataclass, field

TOKENS, CERTIFICATES = "COUNTERMARK_READ_TOKENS", "COUNTERMARK_CLIENT_CERTS"
SECRET_VARIABLES = (TOKENS,)  # nothing that this client starts is told
FILE = "credentials.json"
PORTS = {"http": 80, "https": 443}
Origin = tuple[str, str, int]


@dataclass(frozen=True)
class InKeyring:
    """Where in the system's keyring a sign-in's secrets lie; looked up when a registry asks."""

    service: str
    account: str

    def bearer(self) -> str | None:
        """The header's value; None where the keyring gives nothing."""
        keyring = find_keyring("auto")
        held = None if isinstance(keyring, Absent) else keyring.read(self.service, self.account)
        try:
            return None if held is None else f"Bearer {json.loads(held)['upload_token']}"
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Credentials:
    """Authorization headers and certificates, each for one origin."""

    authorizations: Mapping[Origin, str | InKeyring] = field(default_factory=dict)
    certificates: Mapping[Origin, Certificate] = field(default_factory=dict)

    def headers(self, url: str) -> dict[str, str]:
        """What to send along with a request to this URL."""
        value = self.authorizations.get(origin(url)) if self.authorizations else None
        value = value.bearer() if isinstance(value, InKeyring) else value
        return {} if value is None else {"Authorization": value}

    def certificate(self, url: str) -> Certificate | None:
        """Certificate and key, as files, for a connection to this URL."""
        return self.certificates.get(origin(url)) if self.certificates else None


NONE = Credentials()


def shown_to(url: str, authorization: str | None) -> Credentials:
    """What somebody else showed us, to be passed on to this registry alone; nothing where they showed nothing."""
    return NONE if authorization is None else Credentials({origin(url): authorization})


def origin(url: str) -> Origin:
    """Scheme, host and port, by which credentials are bound; ("", "", 0) for what is no http(s) URL."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return ("", "", 0)
    if parts.scheme not in PORTS or not host:
        return ("", "", 0)
    return (parts.scheme, host, port or PORTS[parts.scheme])


def load(environ: Mapping[str, str], home: Path | None = None) -> Credentials:
    """From the environment, and from what `login` kept; the environment wins. UsageError: not of this form."""
    kept = _kept(home / FILE) if home is not None else {}
    named = {_bound(name, TOKENS): value for name, value in _pairs(environ.get(TOKENS, ""), TOKENS)}
    certificates = {} if home is None else {origin(url): each for url, each in clientcerts.kept(home).items()}
    for name, value in _pairs(environ.get(CERTIFICATES, ""), CERTIFICATES):
        certificate, _, key = value.partition(",")
        certificates[_bound(name, CERTIFICATES)] = (certificate, key or certificate)
    given = {**kept, **named}
    shown = {bound: f"Bearer {each}" if isinstance(each, str) else each for bound, each in given.items()}
    return Credentials(shown, certificates)


def kept_with(home: Path, url: str, token: str | InKeyring) -> bytes:
    """`credentials.json` as it is to be written, with this token for this registry; for who has it to themselves."""
    kept = {**_kept(home / FILE), origin(url): token}
    plain = {_url(bound): each if isinstance(each, str) else vars(each) for bound, each in kept.items()}
    return json.dumps(plain, sort_keys=True).encode()


def _pairs(text: str, variable: str) -> list[tuple[str, str]]:
    pairs = [each.partition("=") for each in text.split()]
    for number, (name, equals, value) in enumerate(pairs, 1):
        if not equals or not value:
            raise UsageError(
                f"{variable}: item {number} is not URL=VALUE",
                hint="https://registry.example=VALUE, one for each registry",
            )
        _bound(name, variable)
    return [(name, value) for name, _, value in pairs]


def _bound(url: str, variable: str) -> Origin:
    found = origin(url)
    if found == ("", "", 0) or urlsplit(url).path.strip("/") or "@" in urlsplit(url).netloc:
        raise UsageError(
            f"{variable}: an item names no registry: it must begin with scheme, host and port alone"
        )
    return found


def _kept(path: Path) -> dict[Origin, str | InKeyring]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(LOCAL_FILE_MAX_BYTES)
    except OSError:  # none was kept, or not for this user: what needs a credential says so
        return {}
    try:
        return {
            origin(url): token
            if isinstance(token, str)
            else InKeyring(str(token["service"]), str(token["account"]))
            for url, token in json.loads(raw).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            f'"{path}" does not hold what `countermark login` writes', hint="delete it, and sign in again"
        ) from None


def bound(url: str) -> str:
    """The origin of a URL, as it is written into files."""
    return _url(origin(url))


def _url(bound: Origin) -> str:
    return f"{bound[0]}://{bound[1]}:{bound[2]}"
