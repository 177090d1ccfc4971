"""An issuer of signed tokens: its keys, and what a token of its says. For people (provider.py) and jobs (jobs.py).

    GET  {issuer}/.well-known/openid-configuration     who it is and where its doors are
    GET  jwks_uri                                      its public keys

A token is believed only if its signature is by a key of the issuer's, with an algorithm of `ALGORITHMS` (never
`none`, never one with a shared secret). Keys are fetched when they are needed, again when they are older than
`keys_max_age`, and once more when a key is unknown, at most every `KEYS_SECONDS`: an issuer may rotate them. One that
did not answer is asked for an unknown key again after `DOWN_SECONDS`, so that strangers' tokens keep nobody waiting.

An issuer that cannot be reached says nothing about anybody: `ProviderDownError`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from countermark.errors import CountermarkError
from countermark.fetch import Fetcher, decode_json

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
ANSWER_MAX_BYTES = 256 * 1024
KEYS_SECONDS = 60.0
DOWN_SECONDS = 10.0  # after a question that nobody answered
KEYS_MAX_AGE = 300.0  # seconds; what an issuer withdraws is worth nothing here after that


class ProviderError(Exception):
    """The provider answered something that is no good sign-in. Said to operators, not to strangers."""


class ProviderDownError(Exception):
    """The provider did not answer, or said that it cannot just now."""


class Issuer:
    """One issuer, and what was fetched of it."""

    def __init__(
        self,
        url: str,
        fetcher: Fetcher,
        *,
        clock: Callable[[], float],
        doors: Sequence[str] = ("jwks_uri",),
        keys_max_age: float = KEYS_MAX_AGE,
    ) -> None:
        """`doors` are what it must say of itself; keys older than `keys_max_age` seconds are not believed."""
        self.url = url
        self._fetcher = fetcher
        self._clock = clock
        self._doors = doors
        self._max_age = keys_max_age
        self._lock = threading.Lock()
        self._described: dict[str, Any] | None = None
        self._keys: KeySet | None = None
        self._keys_at = self._asked_at = -KEYS_SECONDS
        self._down: ProviderDownError | None = None  # what became of the last question, where nobody answered

    def open(self, token: str) -> dict[str, Any]:
        """What a token says whose signature is the issuer's. JoseError, ValueError: it isn't."""
        try:
            return dict(jwt.decode(token, self._key_set(), algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):  # perhaps by a key that is newer than the ones at hand
            return dict(jwt.decode(token, self._key_set(anew=True), algorithms=ALGORITHMS).claims)

    def describe(self) -> dict[str, Any]:
        """What the issuer says of itself."""
        if self._described is None:
            found = self._get(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self.url:
                raise ProviderError(
                    f"the issuer is {self.url!r} in our settings, and calls itself {found.get('issuer')!r}"
                )
            for door in self._doors:
                if not isinstance(found.get(door), str):
                    raise ProviderError(f"the provider does not say its {door}")
            self._described = found
        return self._described

    def _key_set(self, *, anew: bool = False) -> KeySet:
        with self._lock:
            now = self._clock()
            keys = None if now - self._keys_at >= self._max_age else self._keys
            patience = KEYS_SECONDS if self._down is None else DOWN_SECONDS
            if keys is not None and now - self._asked_at < patience:
                if (
                    anew and self._down is not None
                ):  # perhaps a key of today: who waits for an answer waits once
                    raise self._down
                return keys
            if keys is None or anew:
                keys = self._ask(now)
            return keys

    def _ask(self, now: float) -> KeySet:
        """Fetch the keys; the caller holds the lock, so whoever comes meanwhile waits."""
        self._asked_at, self._down = now, None
        try:
            keys = _read_keys(self._get(self.describe()["jwks_uri"]))
        except ProviderDownError as error:
            self._down = error
            raise
        self._keys, self._keys_at = keys, now
        return keys

    def _get(self, url: str) -> dict[str, Any]:
        try:
            raw = self._fetcher.get(url, max_bytes=ANSWER_MAX_BYTES)
        except CountermarkError as error:
            raise ProviderDownError(str(error)) from None
        found = json_object(raw or b"")
        if found is None:
            raise ProviderDownError(f"{url} answers with something that is no JSON object")
        return found


def _read_keys(document: Mapping[str, Any]) -> KeySet:
    """The keys of an issuer; those of a kind that is unknown here are passed over (RFC 7517, section 5)."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ProviderError("what the issuer calls its keys is no list of keys")
    found = list[Any]()
    for each in listed:
        try:
            found += KeySet.import_key_set({"keys": [each]}).keys
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return KeySet(found)


def json_object(raw: bytes) -> dict[str, Any] | None:
    """An answer as JSON; None: it is no JSON object."""
    try:
        found = decode_json(raw)
    except (ValueError, json.JSONDecodeError, CountermarkError):
        return None
    return found if isinstance(found, dict) else None
