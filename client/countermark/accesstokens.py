"""Access tokens: upload tokens for other machines and jobs, each good for as little as it needs.

    countermark tokens make ci --project acme-demo --action upload --days 90
    countermark tokens list
    countermark tokens revoke 3f9a52c1d07be884

A session makes, lists and revokes them, so nobody does with a stolen upload token. The registry keeps their hashes:
what `make` prints is printed once. Whatever their scope, they upload and hand in what somebody signed, no more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from countermark.errors import MalformedError
from countermark.fetch import Fetcher, decode_json
from countermark.pins import Registry
from countermark.publish import JSON, check_answer, document_of
from countermark.session import Session

DAY_SECONDS = 86_400


def make(
    registry: Registry,
    fetcher: Fetcher,
    session: Session,
    name: str,
    *,
    projects: Sequence[str] | None,
    actions: Sequence[str] | None,
    days: int | None,
    service: str | None,
) -> dict[str, Any]:
    """A new token; its secret is the member `token` of what is returned, and nowhere else."""
    asked: dict[str, Any] = {
        "name": name,
        "projects": list(projects) if projects else None,
        "actions": list(actions) if actions else None,
        "expires_in": None if days is None else days * DAY_SECONDS,
        "for": service,
    }
    document = _post(registry, fetcher, session, "tokens", asked, doing="making a token")
    if not isinstance(document.get("token"), str) or not isinstance(document.get("id"), str):
        raise MalformedError(f"{registry.url} made a token and does not say which")
    return document


def listed(registry: Registry, fetcher: Fetcher, session: Session) -> list[dict[str, Any]]:
    """What there is, the newest first."""
    raw = fetcher.get(f"{registry.url}/api/v1/tokens", headers=session.bearer)
    try:
        found = decode_json(raw or b"")["tokens"]
        return [{**each, "id": str(each["id"])} for each in found]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{registry.url} lists tokens in a way we can't read: {error!r}") from None


def revoke(registry: Registry, fetcher: Fetcher, session: Session, token_id: str) -> dict[str, Any]:
    """End one of them, at once and for ever."""
    path = f"tokens/{quote(token_id, safe='')}/revoke"
    return _post(registry, fetcher, session, path, {}, doing=f"revoking token {token_id[:40]}")


def _post(
    registry: Registry, fetcher: Fetcher, session: Session, path: str, body: dict[str, Any], *, doing: str
) -> dict[str, Any]:
    answer = fetcher.post(
        f"{registry.url}/api/v1/{path}",
        json.dumps(body).encode(),
        content_type=JSON,
        headers=session.bearer,
    )
    check_answer(answer, doing)
    return document_of(answer)
