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
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, request
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
from countermark_server.upload import ahead, closed, raw, receive
from countermark_server.upload import views as upload_views
from countermark_server.web import entries, openapi, pages

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    engine: Engine | None = None,
    registry: Signer | None = None,
) -> Flask:
    """The application, with its collaborators built from the settings where none is given."""
    engine = engine or db.open_engine(settings.database_url)
    registry = registry or signing.role_signer(settings, "registry")
    public = places.public(settings)
    blobs = places.blobs(settings)
    published = Published(public, clock)
    answers = Answers(engine, Bell(settings.data))
    statements = Statements(
        engine,
        published,
        Answers(engine, Bell(settings.data), public_size=published.size),
        origin=settings.registry.origin,
        wait=settings.web.wait,
        queue_max=settings.entries.queue_max,
        limits=settings.limits,
        clock=clock,
    )
    uses, sign_ins = Uses(engine), _sign_ins(settings, engine, clock)
    room = TokenRoom(engine, clock=clock)
    acts = Acts(engine, statements, blobs, uses=uses, batch_max=settings.entries.batch_max)
    seats = Seats(
        engine, answers, registry, origin=settings.registry.origin, wait=settings.web.wait, clock=clock
    )
    keys = accounts_keys.Keys(engine, statements, seats, settings.limits, clock=clock)
    receiver = receive.Receiver(
        settings,
        engine,
        blobs,
        published,
        answers,
        registry=registry,
        seats=seats,
        uses=uses,
        vouch=sign_ins.vouch if sign_ins else lambda _: None,
        clock=clock,
    )
    early = ahead.Ahead(engine, statements, clock=clock)
    served = files.Files(engine, blobs, published)
    base_url = settings.registry.base_url

    app = Flask(__name__, static_folder=None)
    app.extensions["sign_ins"] = sign_ins
    app.json.sort_keys = True  # type: ignore[attr-defined]
    access.install(app, access.Gate(settings.access, settings.data, engine, uses=uses, clock=clock))
    app.register_blueprint(closed.blueprint(engine, origin=settings.registry.origin))
    app.register_blueprint(
        accounts_views.blueprint(
            engine,
            statements,
            keys,
            acts,
            unsigned=Unsigned(
                engine, statements, origin=settings.registry.origin, registry=registry, clock=clock
            ),
            releases=Releases(engine, blobs, clock=clock),
            room=room,
            uses=uses,
            sign_ins=sign_ins,
            base_url=base_url,
            batch_max_bytes=settings.entries.batch_max_bytes,
            clock=clock,
        )
    )
    session = Session(engine, sign_ins, base_url=base_url, clock=clock)
    desk = Desk(
        session, base_url=base_url, issuer=settings.oidc.issuer, policy=pages.FORM_POLICY, clock=clock
    )
    app.register_blueprint(
        accounts_pages.Pages(
            engine, desk, sign_ins=sign_ins, keys=keys, room=room, published=published
        ).blueprint()
    )
    app.register_blueprint(Approvals(engine, desk, acts, blobs).blueprint())
    app.register_blueprint(entries.blueprint(published))
    app.register_blueprint(
        signin_views.blueprint(
            engine,
            sign_ins,
            session,
            base_url=base_url,
            issuer=settings.oidc.issuer,
            policy=pages.FORM_POLICY,
            clock=clock,
        )
    )
    jobs = Jobs(
        engine,
        statements,
        _issuers(settings, clock),
        audience=settings.ci.audience or settings.registry.origin,
        mapping=_claims(settings.ci.claims),
        clock=clock,
    )
    app.register_blueprint(jobs_views.blueprint(jobs, statements, clock=clock))
    app.register_blueprint(upload_views.blueprint(receiver, early, base_url=base_url))
    advisories = Advisories(engine, origin=settings.registry.origin, base_url=base_url)
    app.register_blueprint(simple.blueprint(engine, base_url=base_url))
    app.register_blueprint(pypi.blueprint(engine, blobs, advisories, base_url=base_url))
    app.register_blueprint(provenance.blueprint(engine, served))
    app.register_blueprint(osv.blueprint(advisories))
    app.register_blueprint(files.blueprint(served))
    app.register_blueprint(logged.blueprint(logged.Logged(engine, published)))
    app.register_blueprint(evidence.blueprint(engine, blobs))
    app.register_blueprint(static.blueprint(public, served.target))
    app.register_blueprint(about.blueprint(settings, public, published))
    app.register_blueprint(openapi.blueprint(base_url=base_url))
    app.register_blueprint(
        pages.blueprint(
            origin=settings.registry.origin, base_url=base_url, trial=lambda: about.is_trial(public)
        )
    )
    if settings.testing.raw_add:
        app.register_blueprint(raw.blueprint(settings, engine, answers, clock=clock))
    errors.install(app, base_url, telemetry.logger(), page=pages.refused)
    app.before_request(_check_address)
    app.after_request(pages.secure)
    _register_health(app, engine)
    return app


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
