"""What this registry says about itself: `GET /api/v1/registry`. For people and set-up screens.

    {"base_url":"https://registry.example","checkpoint_size":12,"origin":"registry.example/main","trial":false}

Informative, never trusted: a client that believed a registry about its own name, keys or root would have nothing to
check it against.
"""

from __future__ import annotations

import json

from flask import Blueprint, Response, jsonify

from countermark_server.adopted import newest_root
from countermark_server.errors import ServerError
from countermark_server.index.caching import NEVER
from countermark_server.published import Published
from countermark_server.settings import Settings
from countermark_server.stores.public import Public


def blueprint(settings: Settings, public: Public, published: Published) -> Blueprint:
    """The one door of this module."""
    doors = Blueprint("about", __name__)

    @doors.get("/api/v1/registry")
    def registry() -> Response:
        try:
            size = published.checkpoint().size
        except ServerError:
            size = None
        response = jsonify(
            origin=settings.registry.origin,
            base_url=settings.registry.base_url,
            trial=is_trial(public),
            checkpoint_size=size,
            sign_in=["code", "device"] if settings.oidc.issuer else ["code"],
        )
        response.headers["Cache-Control"] = NEVER
        return response

    return doors


def is_trial(public: Public) -> bool | None:
    """Whether the newest root calls itself a trial; None before a ceremony's output was adopted."""
    newest = newest_root(public)
    if newest is None:
        return None
    try:
        return bool(json.loads(newest)["signed"].get("x-countermark-trial", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
