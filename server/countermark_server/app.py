"""The web process: every collaborator is built here once and passed in; rooms meet nowhere else.

    app = create_app(settings, clock=time.time)

    accounts   GET  /_/oidc/audience  POST /_/oidc/mint-token  burn-token  enrol-keys
               POST /api/v1/login  /api/v1/keys  /api/v1/entries  /api/v1/tokens  GET /api/v1/projects/NAME
               POST /api/v1/projects/NAME/owners  GET  /api/v1/releases/  /api/v1/staged/
               GET  /login/device  /login/callback  POST /login/device  /api/v1/login/device
    upload     POST /legacy/  /api/v1/statements
    index      GET  /simple/  /pypi/  /packages/  /integrity/  /v1/vulns/  /api/v1/files/  /api/v1/logged/
                    /api/v1/registry  /log/  /tuf/  /blobs/     POST /v1/query  /v1/querybatch
               GET  /sign-in  /me/...  POST /sign-in  /sign-out  /me/tokens
    web        GET  /  /h/CODE  /e/INDEX  /api/v1/openapi.json
    upload     POST /log/add      with `testing.raw_add` alone, and then nothing else writes
    here       GET  /healthz  /metrics

The process holds one secret: the registry's role key, which signs publish and owner statements in the place of
owners who never signed. It never sees the log's keys, TUF keys or the other roles'.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Engine

from countermark.fetch import HttpFetcher
from countermark.machine import is_issuer
from countermark.statement import Signer
from countermark_server import db, errors, signing, telemetry
from countermark_server.accounts import access, jobs_views, signin_views
from countermark_server.accounts import keys as accounts_keys
from countermark_server.accounts import pages as accounts_pages
from countermark_server.accounts import views as accounts_views
from countermark_server.accounts.acts import Acts
from countermark_server.accounts.approvals import Approvals
from countermark_server.accounts.claims import KINDS, NAMED, PUBLIC
from countermark_server.accounts.desk import Desk, Session
from countermark_server.accounts.doorway import Callers
from countermark_server.accounts.issuer import Issuer
from countermark_server.accounts.jobs import Jobs
from countermark_server.accounts.organisations import ADMIN, MODERATOR
from countermark_server.accounts.provider import Provider
from countermark_server.accounts.releases import Releases
from countermark_server.accounts.sealed import Sealed
from countermark_server.accounts.seats import Seats
from countermark_server.accounts.signin import SignIns
from countermark_server.accounts.statements import Statements
from countermark_server.accounts.tokenroom import TokenRoom, Uses
from countermark_server.accounts.unsigned import Unsigned
from countermark_server.asking import Answers
from countermark_server.bells import Bell
from countermark_server.index import about, evidence, files, logged, osv, provenance, pypi, simple, static
from countermark_server.index.advisories import Advisories
from countermark_server.published import Published
from countermark_server.settings import Settings, SettingsError
from countermark_server.stores import places
from countermark_server.stores.blobs import Blobs
from countermark_server.stores.public import Public
from countermark_server.upload import ahead, closed, raw, receive
from countermark_server.upload import views as upload_views
from countermark_server.web import entries, openapi, pages

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Shared:
    """The collaborators of more than one room."""

    settings: Settings
    clock: Callable[[], float]
    engine: Engine
    registry: Signer
    public: Public
    blobs: Blobs
    published: Published
    answers: Answers
    statements: Statements
    seats: Seats
    uses: Uses
    sign_ins: SignIns | None
    callers: Callers


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    engine: Engine | None = None,
    registry: Signer | None = None,
) -> Flask:
    """The application, with its collaborators built from the settings where none is given."""
    engine = engine or db.open_engine(settings.database_url)
    shared = _shared(settings, clock, engine, registry or signing.role_signer(settings, "registry"))
    base_url = settings.registry.base_url

    app = Flask(__name__, static_folder=None)
    app.extensions["sign_ins"] = shared.sign_ins
    app.json.sort_keys = True  # type: ignore[attr-defined]
    access.install(app, access.Gate(settings.access, settings.data, engine, uses=shared.uses, clock=clock))
    app.register_blueprint(closed.blueprint(engine, origin=settings.registry.origin))
    for doors in (*_accounts(shared), *_upload(shared), *_index(shared), *_web(shared)):
        app.register_blueprint(doors)
    errors.install(app, base_url, telemetry.logger(), page=pages.refused)
    app.before_request(_check_address)
    app.after_request(pages.secure)
    _register_health(app, engine)
    return app


def _shared(settings: Settings, clock: Callable[[], float], engine: Engine, registry: Signer) -> Shared:
    origin, wait = settings.registry.origin, settings.web.wait
    public = places.public(settings)
    published = Published(public, clock)
    answers = Answers(engine, Bell(settings.data))
    statements = Statements(
        engine,
        published,
        Answers(engine, Bell(settings.data), public_size=published.size),
        origin=origin,
        wait=wait,
        queue_max=settings.entries.queue_max,
        limits=settings.limits,
        clock=clock,
    )
    uses, sign_ins = Uses(engine), _sign_ins(settings, engine, clock)
    return Shared(
        settings,
        clock,
        engine,
        registry,
        public,
        blobs=places.blobs(settings),
        published=published,
        answers=answers,
        statements=statements,
        seats=Seats(engine, answers, registry, origin=origin, wait=wait, clock=clock),
        uses=uses,
        sign_ins=sign_ins,
        callers=Callers(engine, uses, sign_ins, clock=clock),
    )


def _accounts(shared: Shared) -> Iterator[Blueprint]:
    """Doors and pages of who signs in, holds keys and tokens, and acts on what is theirs; then those of CI jobs."""
    settings, engine, clock = shared.settings, shared.engine, shared.clock
    statements, sign_ins = shared.statements, shared.sign_ins
    base_url, issuer = settings.registry.base_url, settings.oidc.issuer
    keys = accounts_keys.Keys(engine, statements, shared.seats, settings.limits, clock=clock)
    acts = Acts(engine, statements, shared.blobs, uses=shared.uses, batch_max=settings.entries.batch_max)
    room = TokenRoom(engine, clock=clock)
    yield accounts_views.blueprint(
        engine,
        shared.callers,
        statements,
        keys,
        acts,
        unsigned=Unsigned(
            engine, statements, origin=settings.registry.origin, registry=shared.registry, clock=clock
        ),
        releases=Releases(engine, shared.blobs, clock=clock),
        room=room,
        sign_ins=sign_ins,
        base_url=base_url,
        batch_max_bytes=settings.entries.batch_max_bytes,
        clock=clock,
    )
    session = Session(engine, sign_ins, base_url=base_url, clock=clock)
    doors = signin_views.Doors(
        engine, sign_ins, session, base_url=base_url, issuer=issuer, policy=pages.FORM_POLICY, clock=clock
    )
    yield doors.blueprint()
    desk = Desk(session, base_url=base_url, issuer=issuer, policy=pages.FORM_POLICY, clock=clock)
    mine = accounts_pages.Pages(
        engine, desk, sign_ins=sign_ins, keys=keys, room=room, published=shared.published
    )
    yield mine.blueprint()
    yield Approvals(engine, desk, acts, shared.blobs).blueprint()
    yield _jobs(shared)


def _jobs(shared: Shared) -> Blueprint:
    settings, clock = shared.settings, shared.clock
    jobs = Jobs(
        shared.engine,
        shared.statements,
        _issuers(settings, clock),
        audience=settings.ci.audience or settings.registry.origin,
        mapping=_claims(settings.ci.claims),
        clock=clock,
    )
    return jobs_views.blueprint(jobs, shared.statements, clock=clock)


def _upload(shared: Shared) -> Iterator[Blueprint]:
    """Doors that take files, and statements ahead of theirs."""
    settings, engine, clock = shared.settings, shared.engine, shared.clock
    receiver = receive.Receiver(
        settings,
        engine,
        shared.blobs,
        shared.published,
        shared.answers,
        callers=shared.callers,
        registry=shared.registry,
        seats=shared.seats,
        clock=clock,
    )
    early = ahead.Ahead(engine, shared.statements, clock=clock)
    yield upload_views.blueprint(shared.callers, receiver, early, base_url=settings.registry.base_url)
    if settings.testing.raw_add:
        yield raw.blueprint(settings, engine, shared.answers, clock=clock)


def _index(shared: Shared) -> Iterator[Blueprint]:
    """What anybody may read: pages of installers, files, the public log and TUF."""
    settings, engine, blobs, published = shared.settings, shared.engine, shared.blobs, shared.published
    base_url = settings.registry.base_url
    served = files.Files(engine, blobs, published)
    advisories = Advisories(engine, origin=settings.registry.origin, base_url=base_url)
    yield simple.blueprint(engine, base_url=base_url)
    yield pypi.blueprint(engine, blobs, advisories, base_url=base_url)
    yield provenance.blueprint(engine, served)
    yield osv.blueprint(advisories)
    yield files.blueprint(served)
    yield logged.blueprint(logged.Logged(engine, published))
    yield evidence.blueprint(engine, blobs)
    yield static.blueprint(shared.public, served.target)
    yield about.blueprint(settings, shared.public, published)


def _web(shared: Shared) -> Iterator[Blueprint]:
    """Pages for people, and the description of the doors for programs."""
    registry = shared.settings.registry
    yield entries.blueprint(shared.published)
    yield openapi.blueprint(base_url=registry.base_url)
    yield pages.blueprint(
        origin=registry.origin, base_url=registry.base_url, trial=lambda: about.is_trial(shared.public)
    )


def _sign_ins(settings: Settings, engine: Engine, clock: Callable[[], float]) -> SignIns | None:
    """Sign-ins by the identity provider, where there is one."""
    oidc = settings.oidc
    if not oidc.issuer:
        return None
    if urlsplit(oidc.issuer).scheme != "https" and urlsplit(oidc.issuer).hostname not in LOOPBACK:
        raise SettingsError(f"oidc.issuer is {oidc.issuer!r}, must be https")
    secret = Path(oidc.client_secret_file).read_text("utf-8").strip() if oidc.client_secret_file else ""
    redirect = f"{settings.registry.base_url}/login/callback"
    provider = Provider(oidc, HttpFetcher(), secret, redirect, clock=clock)
    sealed = Sealed(settings.keys / "sealing.key")
    roles = {ADMIN: tuple(oidc.admin_groups.split()), MODERATOR: tuple(oidc.moderator_groups.split())}
    return SignIns(engine, provider, sealed, groups=tuple(oidc.groups.split()), roles=roles, clock=clock)


def _issuers(settings: Settings, clock: Callable[[], float]) -> dict[str, tuple[str, Issuer]]:
    """Kind and issuer by URL, of all whose jobs may publish."""
    found = dict[str, tuple[str, Issuer]]()
    for word in settings.ci.issuers.split():
        kind, _, url = word.partition("=")
        url = url or PUBLIC.get(kind, "")
        if kind not in {*KINDS, "claims"} or not is_issuer(url):
            raise SettingsError(
                f"ci.issuers has {word!r}: say KIND=URL with https, kinds are {', '.join(sorted(KINDS))}, claims",
                hint="http is for an issuer on this machine",
            )
        found[url] = (kind, Issuer(url, HttpFetcher(), clock=clock))
    return found


def _claims(text: str) -> dict[str, str]:
    found = dict(word.partition("=")[::2] for word in text.split())
    if unknown := sorted(name for name, claim in found.items() if name not in NAMED or not claim):
        raise SettingsError(f"ci.claims has {unknown[0]!r}: say NAME=CLAIM, names are {', '.join(NAMED)}")
    return found


def _check_address() -> None:
    """Nothing is named by what no database can be asked for."""
    if "\0" in request.path or b"%00" in request.query_string:
        raise errors.ServerError("not-found", "no address here holds a NUL")


def _register_health(app: Flask, engine: Engine) -> None:
    @app.get("/healthz")
    def healthz() -> Response:
        try:
            db.ping(engine)
        except Exception as error:
            raise errors.ServerError("unavailable", "the database does not answer") from error
        return Response(
            "ok\n", content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"}
        )

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(_metrics(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


def _metrics() -> bytes:
    """This process's metrics, or those of all web workers where they share a directory."""
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return generate_latest(REGISTRY)
    gathered = CollectorRegistry()
    MultiProcessCollector(gathered)  # type: ignore[no-untyped-call]
    return generate_latest(gathered)
