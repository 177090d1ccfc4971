"""Sessions: what signing in gave this machine, and where it is kept.

    {"account": "8f14e45f...", "login": "ada@example.com", "secrets": "keyring", "session_expires": 1763803600}

`session.json` in the registry's folder, with mode 0600. The two secrets, session and upload token, lie in the
system's keyring where there is one (secretstore.py), under the registry's URL and the account; else in the file as
members `session` and `upload_token`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from countermark.credentials import FILE, InKeyring, kept_with
from countermark.disk import locked, read_file, replace_file
from countermark.errors import CountermarkError, MalformedError, PolicyError, UsageError
from countermark.fetch import decode_json
from countermark.limits import LOCAL_FILE_MAX_BYTES
from countermark.pins import Registry
from countermark.secretstore import Absent, Keyring, find_keyring
from countermark.values import dataclass

SECRETS: Final = "secrets"  # member of a session's file that says where its secrets are instead
NOT_ASKED: Final = Absent("none was asked for")


@dataclass(frozen=True)
class Session:
    """What signing in gave us. The session enrols keys, the token uploads; neither can do the other's."""

    account: str
    login: str
    session: str
    session_expires: int
    upload_token: str

    @classmethod
    def nobody(cls) -> Session:
        """Of a machine where nobody is signed in: it opens no door."""
        return cls("", "", "", 0, "")

    @staticmethod
    def is_kept(registry: Registry) -> bool:
        """Whether somebody signed in here, however long ago."""
        return _session_file(registry).exists()

    @classmethod
    def load(cls, registry: Registry) -> Session:
        raw = read_file(_session_file(registry), max_bytes=LOCAL_FILE_MAX_BYTES)
        if raw is None:
            raise UsageError(f"not signed in at {registry.url}", hint=f"countermark login {registry.url}")
        document = _document(raw)
        return cls.parse(_with_secrets(registry, document) if SECRETS in document else raw)

    @classmethod
    def parse(cls, raw: bytes) -> Session:
        try:
            document = decode_json(raw)
            return cls(
                account=str(document["account"]),
                login=str(document["login"]),
                session=str(document["session"]),
                session_expires=int(document["session_expires"]),
                upload_token=str(document["upload_token"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedError(f"the answer to a sign-in lacks what it must have: {error!r}") from None

    @property
    def bearer(self) -> dict[str, str]:
        """The header that says who is signed in."""
        return {"Authorization": f"Bearer {self.session}"}

    def check(self, registry: Registry, *, now: int) -> None:
        """PolicyError once the sign-in has expired."""
        if self.session_expires <= now:
            raise PolicyError("the sign-in has expired", hint=f"countermark login {registry.url}")

    def save(self, registry: Registry, keyring: Keyring | Absent = NOT_ASKED) -> str:
        """Keep it: the secrets in the keyring where there is one, else all in a file. Says where they are."""
        document, path = dict(vars(self)), _session_file(registry)
        secrets_ = {name: document.pop(name) for name in ("session", "upload_token")}
        if isinstance(keyring, Keyring):
            failed = keyring.keep(_service(registry), self.account, json.dumps(secrets_, sort_keys=True))
            if failed is None:
                # If we stop here the file leads to the new secrets, and has the older expiry.
                replace_file(path, json.dumps({**document, SECRETS: "keyring"}, sort_keys=True).encode())
                # If we stop here we are signed in, and reading shows what the sign-in before left.
                _show(registry, InKeyring(_service(registry), self.account))
                return f"session and upload token are in the keyring of this system ({keyring.name})"
            keyring = failed
        elif SECRETS in _document(read_file(path, max_bytes=LOCAL_FILE_MAX_BYTES) or b""):
            older = find_keyring("auto")
            if isinstance(older, Keyring):
                older.forget(_service(registry), self.account)
                # If we stop here nobody is signed in, and the next command says so: better than a token left there.
        replace_file(path, json.dumps(vars(self), sort_keys=True).encode())
        _show(registry, self.upload_token)
        return f'session and upload token are in "{path}", for your eyes alone; no keyring: {keyring.why}'


def _session_file(registry: Registry) -> Path:
    return registry.folder / "session.json"


def _show(registry: Registry, token: str | InKeyring) -> None:
    """Where the registry is not for everybody, reading shows it this token (credentials.py)."""
    home = registry.folder.parent.parent
    with locked(home / f"{FILE}.lock"):  # somebody may be signing in at another registry
        replace_file(home / FILE, kept_with(home, registry.url, token))


def _service(registry: Registry) -> str:
    return f"countermark {registry.url}"


def _document(raw: bytes) -> dict[str, Any]:
    """What a session's file says; nothing, where it is damaged."""
    try:
        found = decode_json(raw)
    except (ValueError, CountermarkError):
        return {}
    return found if isinstance(found, dict) else {}


def _with_secrets(registry: Registry, document: dict[str, Any]) -> bytes:
    """The session with what its file leaves to the keyring."""
    keyring, account = find_keyring("auto"), str(document.get("account"))
    held = None if isinstance(keyring, Absent) else keyring.read(_service(registry), account)
    if held is None:
        why = keyring.why if isinstance(keyring, Absent) else f"{keyring.name} has none, or is locked"
        raise UsageError(
            f"the secrets of the session at {registry.url} are in the keyring, which does not give them: {why}",
            hint=f"unlock it, or sign in anew: countermark login {registry.url} --tokens file",
        )
    rest = {name: value for name, value in document.items() if name != SECRETS}
    return json.dumps({**rest, **_document(held.encode())}).encode()
