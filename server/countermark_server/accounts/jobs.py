"""Jobs: a CI job's OIDC token for an upload token of fifteen minutes, and for the enrolment of a one-run key.

    GET  /_/oidc/audience                                        {"audience": "registry.example/main"}
    POST /_/oidc/mint-token   {"token": JWT}                     {"token": "cmj_...", "expires": 1763800900}
    POST /_/oidc/burn-token   {"token": "cmj_..."}               200, and the token is worth nothing any more
    POST /_/oidc/enrol-keys   {"token": JWT, "envelopes": [...]} enrolments with their proofs, and an upload token

The first three are what `uv publish --trusted-publishing` speaks with any host. The token that comes out uploads to
the projects that trust the job, and nothing else; it enrols no key: that takes a JWT of its own.

    (1) the issuer is one of our settings     (4) the job is one that outsiders can't start (claims.py)
    (2) the signature is by a key of its      (5) a project trusts it: number, name, workflow, ref
    (3) it was made for us, for now           (6) the token was never used before: a unique row says so

(6) comes last, so that a refusal burns no token, and in the transaction that gives something for it. Who started the
job is a person: in entries a digest under a salt of this token, which stays in that row for `SALT_SECONDS` and then
nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from sqlalchemy import Connection, Engine, delete
from sqlalchemy.exc import IntegrityError

from countermark.limits import CI_KEY_SECONDS
from countermark.machine import why_not
from countermark.rules_ci import publisher_keys
from countermark.statement import Envelope, Statement
from countermark_server import db
from countermark_server.accounts import tokens
from countermark_server.accounts.claims import identity_of
from countermark_server.accounts.issuer import ALGORITHMS, Issuer, ProviderDownError, ProviderError
from countermark_server.accounts.people import Randomness, get_account
from countermark_server.accounts.statements import Placed, Statements
from countermark_server.accounts.tokenroom import revoke_token
from countermark_server.accounts.tokens import Principal
from countermark_server.allowance import Cost
from countermark_server.asking import holder_in
from countermark_server.errors import ServerError
from countermark_server.proposal import Offer
from countermark_server.ruleview import SqlView

TOKEN_MAX_CHARS = 16 * 1024  # GitHub's have some 2,000
SKEW_SECONDS = 60
SALT_SECONDS = 90 * 86_400
ENVELOPES_MAX = 32  # projects that one job builds


@dataclass(frozen=True)
class Trusting:
    """A project that trusts a job, and by which of its trusted publishers."""

    namespace: str
    project: str
    publisher: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As tokens are narrowed to it."""
        if not self.project:
            return f"{self.namespace}/*"
        return f"{self.namespace}/{self.project}" if self.namespace else self.project


@dataclass(frozen=True)
class Known:
    """A job whose token was checked: its identity, who trusts it, and by what its token is known."""

    identity: Mapping[str, Any]
    trusting: Sequence[Trusting]
    use: str
    expires: int
    salt: str | None


class Jobs:
    """Checks tokens of jobs, once each."""

    def __init__(
        self,
        engine: Engine,
        statements: Statements,
        issuers: Mapping[str, tuple[str, Issuer]],
        *,
        audience: str,
        mapping: Mapping[str, str],
        clock: Callable[[], float],
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        """`issuers`: kind and issuer by URL; `mapping`: which claims say what, for issuers of the kind `claims`."""
        self._engine = engine
        self._statements = statements
        self._issuers = issuers
        self._audience = audience
        self._mapping = mapping
        self._clock = clock
        self._randomness = randomness

    def audience(self) -> str:
        """For whom tokens must be made. ServerError: this registry has no issuers."""
        if not self._issuers:
            raise ServerError("not-found", "this registry takes no tokens of jobs (`ci.issuers` is empty)")
        return self._audience

    def mint(self, body: object) -> dict[str, Any]:
        """An upload token for a job's token."""
        (token,) = _members(body, "token")
        now = int(self._clock())
        job = self._known(token, now=now)
        with db.write(self._engine) as connection:
            _claim(connection, job, now=now)
            return self._issue(connection, job, actions=["upload"], now=now)

    def burn(self, body: object) -> None:
        """End an upload token that `mint` made. Whoever has it may; one that is unknown or ended is fine, too."""
        (token,) = _members(body, "token")
        with db.write(self._engine) as connection:
            row = tokens.find(connection, token)
            if row is not None and row["kind"] == tokens.JOB:
                revoke_token(connection, row["id"], now=int(self._clock()))

    def enrol(self, body: object) -> tuple[list[Placed], dict[str, Any]]:
        """Enrol one-run keys, one for each project, and give an upload token along: the job's token is used up."""
        token, envelopes = _members(body, "token", "envelopes")
        if not isinstance(envelopes, list) or not 1 <= len(envelopes) <= ENVELOPES_MAX:
            raise ServerError("bad-request", f"envelopes must be a list of 1 to {ENVELOPES_MAX}")
        now = int(self._clock())
        job = self._known(token, now=now)
        offers = [self._offer(job, envelope) for envelope in envelopes]
        with db.read(self._engine) as connection:
            judged = self._statements.judge(SqlView(connection, db.rules_state), offers, now=now)
        for each in judged:
            if isinstance(each, ServerError):
                raise each
        with db.write(self._engine) as connection:
            _claim(connection, job, now=now)
            made = self._issue(connection, job, actions=["entries", "upload"], now=now)
            taken = self._statements.take_in(connection, judged, now=now, all_or_none=True)
            for each in taken:
                if isinstance(each, ServerError):
                    raise each  # no room today: nothing of this is kept, and the job's token is good still
        # Committed: the token is used, and the log takes the enrolments. If we stop here the job, which got no
        # answer, asks its CI system for another token and comes again with another key.
        done = self._statements.finish(offers, taken)
        for each in done:
            if isinstance(each, ServerError):
                raise each
        return [each for each in done if isinstance(each, Placed)], made

    def _offer(self, job: Known, given: object) -> Offer:
        envelope, statement = self._statements.read(
            {"envelope": given}, types=("key-enroll",), what="enrolment"
        )
        said = statement.predicate
        if said["scope"] != "ci":
            raise ServerError(
                "statement-invalid", f"a job enrols keys of scope ci, none of scope {said['scope']}"
            )
        return _enrolment(job, envelope, statement)

    def _issue(
        self, connection: Connection, job: Known, *, actions: Sequence[str], now: int
    ) -> dict[str, Any]:
        """A token for the projects that trust the job; an upload is in the name of who added the publisher there."""
        accounts = sorted({each.publisher["account"] for each in job.trusting})
        alive = [each for each in accounts if get_account(connection, each) is not None]
        names = sorted({each.name for each in job.trusting if each.publisher["account"] in alive})
        if not alive:
            raise ServerError(
                "job-unknown-publisher",
                f"the account that added this publisher was erased: an owner of {job.trusting[0].name} adds it again",
            )
        expires = now + CI_KEY_SECONDS
        secret = tokens.issue_token(
            connection,
            alive[0],
            tokens.JOB,
            now=now,
            expires=expires,
            name=str(job.identity["repository"])[:64],
            projects=names,
            actions=actions,
            identity=json.dumps(job.identity, sort_keys=True),
            randomness=self._randomness,
        )
        return {"success": True, "token": secret, "expires": expires, "projects": names}

    # --- (1) to (5) -----------------------------------------------------------------------------------------
    def _known(self, token: object, *, now: int) -> Known:
        self.audience()
        if not isinstance(token, str) or not 1 <= len(token) <= TOKEN_MAX_CHARS:
            raise ServerError("bad-request", f"token must be a JWT of at most {TOKEN_MAX_CHARS} characters")
        header, unproved = _parts(token)
        kind, claims = self._proved(token, header, unproved)  # (1), (2)
        self._check_claims(claims, now=now)  # (3)
        said = identity_of(kind, claims, self._mapping)  # (4)
        salt, actor = None, said["actor"]
        if actor is not None:
            salt = self._randomness(32).hex()
            actor = hashlib.sha256(bytes.fromhex(salt) + f"{claims['iss']} {actor}".encode()).hexdigest()
        identity = {**said, "actor": actor}
        with db.read(self._engine) as connection:
            trusting = find_trusting(SqlView(connection, db.rules_state), identity, now=now)  # (5)
        expires = claims["exp"] if isinstance(claims["exp"], int) else int(claims["exp"]) + 1
        return Known(identity, trusting, _use(claims, token), expires, salt)

    def _proved(
        self, token: str, header: Mapping[str, Any], unproved: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        issuer = unproved.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            known = ", ".join(sorted(self._issuers))
            raise ServerError(
                "job-token-invalid", f"the token is of issuer {str(issuer)[:120]!r}, known are {known}"
            )
        if header.get("alg") not in ALGORITHMS:
            raise ServerError(
                "job-token-invalid",
                f"the token says alg {str(header.get('alg'))[:20]!r}; taken are {', '.join(ALGORITHMS)}: "
                "no secret is shared with an issuer, and what nobody signed is nobody's",
            )
        if not isinstance(header.get("kid"), str):
            raise ServerError("job-token-invalid", "the token does not name its key (kid)")
        kind, found = self._issuers[issuer]
        try:
            return kind, found.open(token)
        except ProviderDownError as error:
            raise ServerError(
                "unavailable", f"{issuer} does not answer, so nothing it signs is believed: {error}"
            ) from None
        except (JoseError, ValueError, ProviderError) as error:
            raise ServerError(
                "job-token-invalid",
                f"the token's signature is by no key that {issuer} has now (kid {header['kid'][:80]!r}): {error}",
            ) from None

    def _check_claims(self, claims: Mapping[str, Any], *, now: int) -> None:
        audience = claims.get("aud")
        if audience not in (self._audience, [self._audience]):
            raise ServerError(
                "job-audience",
                f"the token was made for {str(audience)[:200]!r}, this registry is {self._audience!r}",
            )
        essential = {name: {"essential": True} for name in ("exp", "iat", "sub")}
        try:
            jwt.JWTClaimsRegistry(now=now, leeway=SKEW_SECONDS, **essential).validate(dict(claims))  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError) as error:
            times = {name: claims.get(name) for name in ("exp", "iat", "nbf") if name in claims}
            raise ServerError(
                "job-token-expired", f"the token is not of this time, {now}: {error}; it says {times}"
            ) from None


def uploader_of(principal: Principal, project: str, *holders: Mapping[str, Any] | None) -> str:
    """In whose name somebody uploads: their own, or, for a job, that of who trusted it there."""
    if principal.identity is None:
        return principal.account_id
    for item in (item for state in holders for item in (state or {}).get("publishers", {}).values()):
        if why_not(item, principal.identity) is None:
            return str(item["account"])
    raise ServerError(
        "job-unknown-publisher", f"{project} does not trust {principal.identity['repository']} any more"
    )


def find_trusting(view: SqlView, identity: Mapping[str, Any], *, now: int) -> list[Trusting]:
    """The projects that trust this job. ServerError: none does, and why the nearest one doesn't."""
    places = [view.get(key) for key in publisher_keys(identity)]
    projects = sorted({tuple(each) for state in places if state for each in state["projects"]})
    found, reasons = list[Trusting](), list[tuple[str, str]]()
    for namespace, project in projects:
        state = holder_in(view, namespace, project, now=now)
        for item in (state or {}).get("publishers", {}).values():
            reason = why_not(item, identity)
            if reason is None:
                found.append(Trusting(namespace, project, item))
            else:
                reasons.append((_why(item, identity), f"{project or namespace}: {reason}"))
    if found:
        return found
    who = f"{identity['repository']} (number {identity['repository_id']}, {identity['workflow']})"
    if not reasons:
        raise ServerError(
            "job-unknown-publisher",
            f"no project trusts {who}: a fork, or nobody has added it; an owner does by "
            "`countermark trusted-publisher add`",
        )
    code, reason = max(reasons, key=lambda each: each[0] == "job-renamed")
    raise ServerError(code, f"{who} is not what is trusted: {reason}; an owner may add it as it is now")


def _why(item: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    same = [item[name] == identity[name] for name in ("repository", "repository_id")]
    return "job-unknown-publisher" if all(same) or item["issuer"] != identity["issuer"] else "job-renamed"


def _enrolment(job: Known, envelope: Envelope, statement: Statement) -> Offer:
    """The entry that is asked for: authorised by the trusted publisher that its statement follows."""
    said = statement.predicate
    for each in job.trusting:
        covers = (each.namespace, each.project) in (
            (said["namespace"], said["project"]),
            (said["namespace"], ""),
        )
        if covers and each.publisher["lh"] == said["prev"]:
            registry = {
                "account": each.publisher["account"],
                "authorised_by": each.publisher["index"],
                "identity": dict(job.identity),
            }
            return Offer("key-enroll", envelope, registry, statement, Cost(each.publisher["account"]))
    names = ", ".join(sorted(each.name for each in job.trusting))
    raise ServerError(
        "job-unknown-publisher",
        f"the enrolment is for {said['project']!r} under entry {said['prev']}; this job is trusted by {names}",
    )


def _claim(connection: Connection, job: Known, *, now: int) -> None:
    """(6): the first who writes the row has the token, whatever worker they came by."""
    table = db.job_token
    connection.execute(delete(table).where(table.c.expires < now - SALT_SECONDS))
    try:
        connection.execute(
            table.insert().values(use_sha256=job.use, used=now, expires=job.expires, salt=job.salt)
        )
    except IntegrityError:
        raise ServerError(
            "job-token-reused",
            "this token of the job was used before; each is good for one request: ask the CI system for another",
        ) from None


def _use(claims: Mapping[str, Any], token: str) -> str:
    """By what a token is known: its own number, or, where an issuer gives none, all that was signed."""
    jti = claims.get("jti")
    what = f"jti {jti}" if isinstance(jti, str) and jti else f"signed {token.rpartition('.')[0]}"
    return hashlib.sha256(f"{claims['iss']} {what}".encode()).hexdigest()


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, unproved: they say whom to ask, and nothing else."""
    try:
        header, payload, _ = token.split(".")
        found = [
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (header, payload)
        ]
    except (ValueError, RecursionError):
        found = []
    if len(found) != 2 or not all(isinstance(part, dict) for part in found):
        raise ServerError("job-token-invalid", "the token is no signed JWT")
    return found[0], found[1]


def _members(body: object, *names: str) -> list[Any]:
    if not isinstance(body, Mapping) or set(body) != set(names):
        raise ServerError("bad-request", f"the body must be an object with exactly {', '.join(names)}")
    return [body[name] for name in names]
