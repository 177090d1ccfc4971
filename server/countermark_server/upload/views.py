"""The doors of this room: `POST /legacy/`, what upload tools speak, and `POST /api/v1/statements` (ahead.py).

    200 {"index": 6, "leaf_hash": "9f2c...", "proof": "c2sp.org/tlog-proof@v1\\n...", "sha256": "5891...",
         "state": "logged", "status_url": "https://...", "message": "logged, not yet listed: ..."}
    202 the same without proof: durable, and the status URL will have it

The view only translates; receive.py is the path of a file, ahead.py that of a statement without one.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from countermark_server.accounts.doorway import Callers, json_body, never_cached
from countermark_server.errors import ACCEPTED
from countermark_server.upload.ahead import Ahead
from countermark_server.upload.receive import Receiver


def blueprint(callers: Callers, receiver: Receiver, ahead: Ahead, *, base_url: str) -> Blueprint:
    """The doors, opened onto these collaborators."""
    doors = Blueprint("upload", __name__)
    doors.after_request(never_cached)

    @doors.post("/legacy/", strict_slashes=False)  # twine follows no redirect
    def legacy() -> tuple[Response, int] | Response:
        answer = receiver.receive(request.environ)
        body = jsonify(
            index=answer.index,
            leaf_hash=answer.leaf_hash,
            sha256=answer.sha256,
            state=answer.state,
            proof=answer.proof,
            status_url=f"{base_url}/api/v1/files/{answer.project}/{answer.filename}",
            message=answer.message,
        )
        return body if answer.proof is not None else (body, ACCEPTED)

    @doors.post("/api/v1/statements")
    def statements() -> Response:
        principal = callers.who(request.headers.get("Authorization"))
        return jsonify(vars(ahead.take(principal, json_body())))

    return doors
