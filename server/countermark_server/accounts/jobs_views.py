"""The doors for jobs (jobs.py), where upload tools look for them on any host: `/_/oidc/...`."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request

from countermark_server.accounts.doorway import json_body, never_cached
from countermark_server.accounts.jobs import Jobs
from countermark_server.accounts.ratelimit import RateLimit
from countermark_server.accounts.statements import Statements
from countermark_server.errors import ACCEPTED

ATTEMPTS, SECONDS = 120, 60.0  # of one address; many jobs of a company come by one


def blueprint(jobs: Jobs, statements: Statements, *, clock: Callable[[], float]) -> Blueprint:
    """The doors, opened onto these collaborators."""
    doors = Blueprint("jobs", __name__, url_prefix="/_/oidc")
    doors.after_request(never_cached)
    limit = RateLimit(ATTEMPTS, SECONDS)

    @doors.get("/audience")
    def audience() -> Response:
        return jsonify(audience=jobs.audience())

    @doors.post("/mint-token")
    def mint() -> Response:
        return jsonify(jobs.mint(counted()))

    @doors.post("/burn-token")
    def burn() -> Response:
        jobs.burn(counted())
        return jsonify(success=True)

    @doors.post("/enrol-keys")
    def enrol() -> tuple[Response, int] | Response:
        placed, made = jobs.enrol(counted())
        enrolments = [
            {"index": each.index, "leaf_hash": each.leaf_hash, "proof": statements.proof(each)}
            for each in placed
        ]
        response = jsonify(**made, enrolments=enrolments)
        return response if all(each.public for each in placed) else (response, ACCEPTED)

    def counted() -> object:
        limit.count(request.remote_addr or "", now=clock())
        return json_body()

    return doors
