"""The identity provider: OpenID Connect, as far as signing people in and asking about them later needs it.

    GET  {issuer}/.well-known/openid-configuration     who it is and where its doors are
    GET  authorization_endpoint?...&code_challenge=    where the browser goes (authorization code, PKCE S256)
    POST token_endpoint                                a code, or a refresh token, for an ID token

An ID token is believed only if its signature is by a key of the provider (issuer.py), its issuer and audience are the
ones in our settings, it is neither old nor from the future, and, at a sign-in, it carries the nonce of that very
sign-in.

A provider that cannot be reached says nothing about anybody (`ProviderDownError`); one that refuses a refresh token
says that the person is not to be signed in any more (`GoneError`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from joserfc import jwt
from joserfc.errors import JoseError

from countermark.errors import CountermarkError
from countermark.fetch import Fetcher
from countermark_server.accounts.issuer import (
    ANSWER_MAX_BYTES,
    Issuer,
    ProviderDownError,
    ProviderError,
    json_object,
)
from countermark_server.settings import Oidc

DOORS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
SCOPES = "openid profile email groups offline_access"
SKEW_SECONDS = 60
ANSWER_SECONDS = 10.0
FORM = "application/x-www-form-urlencoded"


class GoneError(Exception):
    """The provider vouches for this person no longer."""


@dataclass(frozen=True)
class Vouched:
    """Whom the provider vouches for now, and what to ask it with later."""

    subject: str
    name: str
    groups: tuple[str, ...] | None  # None: this answer said nothing about groups
    refresh: str


class Provider:
    """One OpenID Connect provider."""

    def __init__(
        self, settings: Oidc, fetcher: Fetcher, secret: str, redirect: str, *, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._secret = secret
        self._redirect = redirect
        self._clock = clock
        self._issuer = Issuer(settings.issuer, fetcher, clock=clock, doors=DOORS)

    @property
    def issuer(self) -> str:
        return self._settings.issuer

    def authorize_url(self, *, state: str, nonce: str, verifier: str, fresh: bool = False) -> str:
        """Where the browser goes to sign in; `fresh`: the provider shall ask even whom it knows."""
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "client_id": self._settings.client_id,
            "response_type": "code",
            "redirect_uri": self._redirect,
            "scope": SCOPES,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        if fresh:
            asked["prompt"] = "login"
        door: str = self._issuer.describe()["authorization_endpoint"]
        return door + ("&" if "?" in door else "?") + urlencode(asked)

    def redeem(self, code: str, *, verifier: str, nonce: str) -> Vouched:
        """Who came back with this code."""
        said = self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self._redirect,
                "code_verifier": verifier,
            }
        )
        claims = self._claims(said.get("id_token"))
        if claims.get("nonce") != nonce:
            raise ProviderError("the ID token is of another sign-in: its nonce differs")
        refresh = said.get("refresh_token")
        if not isinstance(refresh, str):
            raise ProviderError("the provider gave no refresh token: allow offline_access for this client")
        return self._vouched(claims, refresh)

    def ask(self, subject: str, refresh: str) -> Vouched:
        """Whether the provider still vouches for this person."""
        said = self._token({"grant_type": "refresh_token", "refresh_token": refresh})
        newer = said.get("refresh_token")
        newer = newer if isinstance(newer, str) else refresh
        if said.get("id_token") is None:
            return Vouched(subject, "", None, newer)
        claims = self._claims(said["id_token"])
        if claims["sub"] != subject:
            raise ProviderError(f"asked about {subject!r}, the provider speaks of {claims['sub']!r}")
        return self._vouched(claims, newer)

    def _vouched(self, claims: Mapping[str, Any], refresh: str) -> Vouched:
        groups = claims.get(self._settings.groups_claim)
        listed = tuple(str(each) for each in groups) if isinstance(groups, list) else None
        names = (claims.get(name) for name in ("preferred_username", "email", "sub"))
        name = next(str(each) for each in names if each)
        return Vouched(claims["sub"], name, listed, refresh)

    def _claims(self, token: object) -> dict[str, Any]:
        """What an ID token says, once all of it was checked."""
        if not isinstance(token, str):
            raise ProviderError("the provider gave no ID token")
        try:
            claims = self._issuer.open(token)
            jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=SKEW_SECONDS,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self._settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderError(f"ID token refused: {error}") from None
        audience, party = claims["aud"], claims.get("azp")
        if (isinstance(audience, list) and len(audience) > 1 and party is None) or (
            party is not None and party != self._settings.client_id
        ):
            raise ProviderError("the ID token was made for another client")
        if not isinstance(claims["sub"], str) or not 1 <= len(claims["sub"]) <= 255:
            raise ProviderError("the ID token names nobody")
        return dict(claims)

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        """Ask the token endpoint, as a confidential client or, without a secret, as a public one."""
        headers = {"Accept": "application/json"}
        if self._secret:
            pair = f"{quote(self._settings.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form = {**form, "client_id": self._settings.client_id}
        try:
            answer = self._fetcher.post(
                self._issuer.describe()["token_endpoint"],
                urlencode(form).encode(),
                content_type=FORM,
                headers=headers,
                max_bytes=ANSWER_MAX_BYTES,
                timeout=ANSWER_SECONDS,
            )
        except CountermarkError as error:
            raise ProviderDownError(str(error)) from None
        document = None if answer.status // 100 == 5 else json_object(answer.body)
        if document is None:
            raise ProviderDownError(f"the provider answers {answer.status}")
        if answer.ok:
            return document
        if document.get("error") == "invalid_grant":
            raise GoneError
        raise ProviderError(f"the provider refuses: {str(document.get('error'))[:80]}")
