"""Namespaces of who serves files elsewhere: the client's own engines against the real doors and a real log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from countermark import afterwards, approving, countersign, jobs, logonlypublish, namespacefiles
from countermark.actfile import Act
from countermark.distribution import read_distribution
from countermark.entry import Entry
from countermark.errors import EvidenceError, PolicyError, UsageError
from countermark.fetch import Answer
from countermark.pins import Registry
from countermark.place import Place
from countermark.projectstate import ProjectState
from countermark.publish import needs_enrolment
from countermark.session import Session
from countermark.statement import KeySigner
from countermark.tlog.checkpoint import open_checkpoint
from tests.archives import wheel
from tests.doors import BASE_URL, Person
from tests.jobissuer import JobIssuer, running
from tests.jobworld import JobWorld

WIDGET = "corp/widget"
JOB = {
    **{"ref": "refs/tags/*", "repository": "acme/widgets", "repository_id": "4711"},
    "workflow": "release.yml",
}


class Doors:
    """The client's fetcher, onto the application."""

    def __init__(self, world: JobWorld) -> None:
        self.client = world.app.test_client()

    def get(
        self, url: str, *, missing_ok: bool = False, headers: Mapping[str, str] | None = None, **_: Any
    ) -> bytes | None:
        answer = self.client.get(urlsplit(url).path, headers=dict(headers or {}))
        if answer.status_code == 404 and missing_ok:
            return None
        assert answer.status_code == 200, (url, answer.get_data())
        return answer.get_data()

    def post(
        self, url: str, body: bytes, *, content_type: str, headers: Mapping[str, str] | None = None, **_: Any
    ) -> Answer:
        answer = self.client.post(
            urlsplit(url).path, data=body, content_type=content_type, headers=dict(headers or {})
        )
        return Answer(answer.status_code, answer.status, {}, answer.get_data())


@pytest.fixture(scope="module")
def issuer() -> Iterator[JobIssuer]:
    with running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, issuer: JobIssuer) -> Iterator[JobWorld]:
    """A registry that takes jobs of an issuer, and its log at work."""
    made = JobWorld(tmp_path / "registry", issuer)
    with made.run():
        yield made
        made.quiet()
        made.check()
    made.close()


def owner(world: JobWorld, person: Person, tmp_path: Path) -> afterwards.Owner:
    """Somebody at their machine, with what is verified there; of the view only what these engines look at."""
    doors, now = Doors(world), int(world.clock())
    head = open_checkpoint(doors.get(f"{BASE_URL}/log/checkpoint") or b"", world.trust.policy, now=now)
    view: Any = SimpleNamespace(
        registry=Registry(BASE_URL, tmp_path / person.login, root=b"", first_use=False),
        trust_file=world.trust,
        checkpoint=head,
    )
    session = Session(person.account, person.login, person.session, now + 3600, person.token)
    return afterwards.Owner(view, doors, session, person.key, now)


def recorded(done: afterwards.Recorded | Act) -> afterwards.Recorded:
    assert isinstance(done, afterwards.Recorded)
    return done


def open_namespace(world: JobWorld, tmp_path: Path) -> tuple[afterwards.Owner, afterwards.Owner]:
    """Ada opens `corp`, and lets Bob and his key in."""
    ada = owner(world, world.person("ada"), tmp_path)
    bob_person = world.person("bob")
    assert ada.signer is not None
    recorded(ada.let_in("corp/*", ada.signer, [], None, None))
    world.quiet()
    recorded(ada.change("corp/*", "add", bob_person.account, "owner"))
    world.quiet()
    bob = owner(world, bob_person, tmp_path)
    act = bob.let_in("corp/*", bob.signer, [], None, None) if bob.signer else None
    assert isinstance(act, Act) and act.project == "corp/*"
    signed = countersign.countersign(ada, countersign.examine(ada, Act.parse(act.format())))
    assert signed.lacking is None
    recorded(bob.submit(signed.act))
    world.quiet()
    return ada, bob


def log(who: afterwards.Owner, path: Path, signer: KeySigner | None = None) -> int:
    file = replace(read_distribution(path), namespace="corp")
    envelope = file.attest(who.view.trust_file.origin, signer or who.signer)  # type: ignore[arg-type]
    return logonlypublish.log(who.view, who.fetcher, who.session, file, envelope, now=who.now)


def built(tmp_path: Path, version: str) -> Path:
    path = tmp_path / f"widget-{version}-py3-none-any.whl"
    path.write_bytes(wheel("widget", version))
    return path


def test_places_have_one_spelling() -> None:
    """A project, one of a namespace, a namespace; nothing else is taken for one of them."""
    for text, place in (("Acme_X", ("", "acme-x")), (WIDGET, ("corp", "widget")), ("corp/*", ("corp", ""))):
        assert Place.parse(text) == Place(*place)
    assert str(Place.parse("corp/Widget")) == WIDGET and str(Place.parse("corp/*")) == "corp/*"
    for text in (
        "",
        "*",
        "/widget",
        "Corp/widget",
        "a/b/c",
        "corp/",
        "corp/**",
        "corp/wid*",
        "co rp/x",
        "../x",
    ):
        with pytest.raises(UsageError):
            Place.parse(text)


def test_two_people_approve_what_is_served_elsewhere(world: JobWorld, tmp_path: Path) -> None:
    """Opened, shared, logged, approved by both from their own copies; one alone lists nothing and changes nothing."""
    ada, bob = open_namespace(world, tmp_path)
    path = built(tmp_path, "1.0")
    with pytest.raises(PolicyError, match="nobody has opened namespace other"):
        needs_enrolment(ada.view.registry, ada.fetcher, {"other/widget"}, "00" * 32)
    recorded(ada.require("corp/*", 2))
    world.quiet()
    index = log(ada, path)
    assert log(ada, path) == index  # twice is once
    world.quiet()
    state = ProjectState.fetch(ada.fetcher, ada.view.registry, WIDGET)
    assert (state.approvals, len(state.keys), state.threshold) == (2, 2, 1)
    act = ada.change("corp/*", "remove", bob.session.account)
    assert isinstance(act, Act)  # not alone
    release = approving.look(ada, WIDGET, "1.0")
    assert [file.index for file in release.files] == [index] and release.needed == 2
    (mine,) = approving.contents(ada, release, [path])
    assert mine.remark is None and mine.members
    (unseen,) = approving.contents(ada, release)
    assert "served elsewhere" in str(unseen.remark)
    other = tmp_path / "other" / path.name
    other.parent.mkdir()
    other.write_bytes(wheel("widget", "2.0"))
    with pytest.raises(EvidenceError):
        approving.contents(ada, release, [other])
    approving.decide(ada, release, "approve")
    world.quiet()
    release = approving.look(bob, WIDGET, "1.0")
    assert release.approved == (ada.session.account,)
    written = Act.parse(approving.written(bob, release, "approve").format())
    assert approving.check_act(bob, written) == release
    recorded(bob.submit(written))
    world.quiet()
    with pytest.raises(PolicyError, match="no file of"):
        approving.look(bob, WIDGET, "1.0")


def test_a_job_publishes_what_is_served_elsewhere(world: JobWorld, issuer: JobIssuer, tmp_path: Path) -> None:
    """Trusted for the whole namespace: a key of one run, its statements in the log, the job in clear."""
    ada, _ = open_namespace(world, tmp_path)
    recorded(ada.trust("corp/*", "add", {"issuer": issuer.url, **JOB}))
    world.quiet()
    log(ada, built(tmp_path, "0.9"))  # the project has state of its own, and is trusted by the namespace
    world.quiet()
    now = int(world.clock())
    run, session, indexes = jobs.enrol_run(ada.view, ada.fetcher, world.job(), [WIDGET], now=now)
    world.quiet()
    job = replace(ada, session=session, signer=run)
    index = log(job, built(tmp_path, "1.0"), run)
    said = Entry.parse(ada.fetcher.get(f"{BASE_URL}/e/{index}") and countersign.newest(ada).entry(index))
    assert said.registry is not None and said.statement is not None
    assert said.registry["identity"]["repository"] == "acme/widgets"
    assert said.registry["key_index"] == indexes[WIDGET]
    assert said.registry["uploader"] == ada.session.account
    assert Place.of(said.statement.predicate) == Place("corp", "widget")
    removed = next(iter(ProjectState.fetch(ada.fetcher, ada.view.registry, "corp/*").publishers))
    recorded(ada.trust("corp/*", "remove", {name: removed[name] for name in ("issuer", *JOB)}))
    world.quiet()
    with pytest.raises(PolicyError):
        log(job, built(tmp_path, "1.1"), run)


def test_an_owner_withdraws_what_is_served_elsewhere(world: JobWorld, tmp_path: Path) -> None:
    """yank, unyank and remove by version, each following the last; what is not there is not guessed."""
    ada, bob = open_namespace(world, tmp_path)
    index = log(ada, built(tmp_path, "1.0"))
    log(ada, built(tmp_path, "1.1"))
    world.quiet()
    for kind, reason, standing in (
        ("yank", "broken", "yanked"),
        ("unyank", "fixed", "ok"),
        ("remove", "security", "removed"),
    ):
        (known,) = namespacefiles.find(bob, "corp/widget==1.0.0")
        assert known.index == index and known.project == WIDGET
        recorded(bob.act(kind, known, reason))
        world.quiet()
        (known,) = namespacefiles.find(ada, "corp/Widget==1.0")
        assert known.standing == standing
    assert namespacefiles.find(ada, "corp/widget==1.1")[0].standing == "ok"
    for wanted, error in (
        ("corp/widget==2.0", PolicyError),
        ("corp/gadget==1.0", PolicyError),
        ("corp/*==1.0", UsageError),
        ("corp/widget==one", UsageError),
    ):
        assert namespacefiles.is_meant(wanted)
        with pytest.raises(error):
            namespacefiles.find(ada, wanted)
    assert not namespacefiles.is_meant("widget==1.0") and not namespacefiles.is_meant(
        "dist/widget-1.0.tar.gz"
    )
    eve = owner(world, world.person("eve"), tmp_path)
    with pytest.raises(PolicyError):
        eve.act("yank", namespacefiles.find(eve, "corp/widget==1.1")[0], "broken")


def test_a_key_of_a_namespace_is_replaced(world: JobWorld, tmp_path: Path) -> None:
    """By its own signature; the new one signs there, the old one no longer."""
    ada, _ = open_namespace(world, tmp_path)
    assert ada.signer is not None
    assert ada.projects(ada.signer.keyid) == ["corp/*"]
    new = world.person("nobody").key
    index = ada.vouch("corp/*", new)
    world.quiet()
    assert isinstance(index, int)
    assert ada.as_signer(new).revoke("corp/*", ada.signer.keyid, "superseded").index > index
    world.quiet()
    with pytest.raises(PolicyError):
        log(ada, built(tmp_path, "1.0"))
    assert log(ada.as_signer(new), built(tmp_path, "1.0")) > index


def test_a_stranger_and_a_token_do_nothing_in_a_namespace(world: JobWorld, tmp_path: Path) -> None:
    """No key, no owner, no publish, no vote; a token that may upload opens no namespace."""
    ada, _ = open_namespace(world, tmp_path)
    eve = owner(world, world.person("eve"), tmp_path)
    assert eve.signer is not None and ada.signer is not None
    token = replace(ada, session=replace(ada.session, session=ada.session.upload_token))
    world.quiet()
    before = world.state()
    for act in (
        lambda: eve.change("corp/*", "add", eve.session.account, "owner"),
        lambda: eve.require(WIDGET, 0),
        lambda: eve.trust(WIDGET, "add", {"issuer": world.issuer.url, **JOB}),
        lambda: log(eve, built(tmp_path, "1.0")),
        lambda: replace(eve, signer=ada.signer).require("corp/*", 1),
        lambda: token.require("corp/*", 1),
        lambda: token.let_in("new/*", token.signer, [], None, None),
    ):
        with pytest.raises(PolicyError):
            act()  # type: ignore[no-untyped-call]
    act = eve.let_in("corp/*", eve.signer, [], None, None)
    assert isinstance(act, Act)  # it lacks a signature of the namespace's, which Eve's is not
    with pytest.raises(PolicyError):
        countersign.countersign(eve.as_signer(world.person("sam").key), countersign.examine(eve, act))
    assert world.state()["rows"]["rules_state"] == before["rows"]["rules_state"]
