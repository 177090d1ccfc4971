"""publish.py, distribution.py and signer.py: what a registry may answer, and what a publisher may hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark import ahead, publish, signer
from countermark.distribution import distributions, read_distribution
from countermark.errors import (
    CountermarkError,
    EvidenceError,
    MalformedError,
    NetworkError,
    PolicyError,
    UsageError,
    WithdrawnError,
)
from countermark.fetch import Answer
from countermark.statement import Envelope, check_signatures
from countermark.trust import opened
from tests.client.cli.test_commands import sdist, wheel
from tests.machine import Machine
from tests.simulator import World

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def machine(tmp_path: Path, world: World) -> Machine:
    return Machine(tmp_path / "home", world)


def test_a_statement_says_what_the_file_is(tmp_path: Path) -> None:
    """Digest, length, and the digests of METADATA and RECORD; a source distribution has no RECORD."""
    path = wheel(tmp_path)
    file = read_distribution(path)
    predicate = file.statement("registry.test/log").predicate
    with zipfile.ZipFile(path) as archive:
        for member, name in (("METADATA", "metadata_sha256"), ("RECORD", "record_sha256")):
            data = archive.read(f"acme_demo-1.0.dist-info/{member}")
            assert predicate[name] == hashlib.sha256(data).hexdigest()
    assert (predicate["project"], predicate["version"], predicate["length"]) == (
        "acme-demo",
        "1.0",
        path.stat().st_size,
    )
    assert (
        read_distribution(sdist(tmp_path)).statement("registry.test/log").predicate["record_sha256"] is None
    )


def test_an_attestation_is_kept_while_it_is_true(tmp_path: Path, world: World) -> None:
    """The same bytes keep their signature file; rebuilt bytes or another key replace it."""
    file = read_distribution(wheel(tmp_path))
    file.attest("registry.test/log", world.publisher)
    first = file.attestation_path.read_bytes()
    file.attestation_path.write_bytes(json.dumps(json.loads(first), indent=2).encode())
    reserialised = file.attestation_path.read_bytes()
    file.attest("registry.test/log", world.publisher)
    assert file.attestation_path.read_bytes() == reserialised
    rebuilt = read_distribution(wheel(tmp_path, body="rebuilt"))
    envelope = rebuilt.attest("registry.test/log", world.publisher)
    assert Envelope.parse(rebuilt.attestation_path.read_bytes()) == envelope
    rebuilt.attest("registry.test/log", world.keys.registry)
    other = Envelope.parse(rebuilt.attestation_path.read_bytes())
    check_signatures(other, {world.keys.registry.keyid: world.keys.registry.public_key})
    rebuilt.attestation_path.write_bytes(b"junk")
    rebuilt.attest("registry.test/log", world.publisher)
    assert Envelope.parse(rebuilt.attestation_path.read_bytes()).keyids == (world.publisher.keyid,)


def test_signatures_beside_files_are_passed_over() -> None:
    """`dist/*` holds them; alone they are nothing to publish."""
    paths = [Path("a-1-py3-none-any.whl"), Path("a-1-py3-none-any.whl.publish.attestation"), Path("a.asc")]
    assert distributions(paths) == paths[:1]
    with pytest.raises(UsageError, match="no distribution"):
        distributions(paths[1:])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(400, "Bad Request", {}, b'{"detail":"no"}'), PolicyError),
        (Answer(403, "Forbidden", {}, b""), PolicyError),
        (Answer(401, "", {}, b"<html>"), PolicyError),
        (Answer(429, "Slow down", {}, b""), NetworkError),
        (Answer(503, "", {}, b"{}"), NetworkError),
        (Answer(200, "OK", {}, b""), MalformedError),
        (Answer(200, "OK", {}, b"[]"), MalformedError),
        (Answer(200, "OK", {}, b'{"account":"x"}'), MalformedError),
        (Answer(200, "OK", {}, b"[" * 100_000), MalformedError),
    ],
)
def test_signing_in_keeps_nothing_of_a_refusal(
    machine: Machine, world: World, monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]
) -> None:
    """Every refusal and every broken answer is an error of its kind, and no session is stored."""
    monkeypatch.setattr(world, "post", lambda *_, **__: answer)
    with pytest.raises(error):
        publish.sign_in(machine.registry, world, "code", now=world.now)
    assert not (machine.registry.folder / "session.json").exists()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(400, "Bad Request", {}, b'{"detail":"no"}'), PolicyError),
        (Answer(503, "", {}, b"{}"), NetworkError),
        (Answer(200, "OK", {}, b"junk"), MalformedError),
        (Answer(200, "OK", {}, b'{"state":"waiting","expires":"soon"}'), MalformedError),
        (Answer(200, "OK", {}, b'{"state":"gone","expires":1}'), MalformedError),
    ],
)
def test_a_statement_counts_as_submitted_only_when_the_answer_says_so(  # noqa: PLR0917
    tmp_path: Path,
    machine: Machine,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    error: type[Exception],
) -> None:
    """Refusals and answers of any other shape are errors of their kind."""
    file = read_distribution(wheel(tmp_path))
    envelope = file.attest("registry.test/log", world.publisher)
    session = publish.Session("ab" * 16, "alice", "s", 1, "the-token")
    monkeypatch.setattr(world, "post", lambda *_, **__: answer)
    with pytest.raises(error):
        ahead.submit(machine.registry, world, session, file, envelope)


@given(document=JSON_VALUES)
def test_no_answer_about_a_project_leaks(document: object) -> None:
    """Whatever the API says of a project: a state or a MalformedError."""
    world = World()
    world.override["/api/v1/projects/acme"] = json.dumps(document).encode()

    class Pinned:
        url = world.base

    with contextlib.suppress(MalformedError):
        publish.ProjectState.fetch(world, Pinned(), "acme")  # type: ignore[arg-type]


def test_broken_answers_about_a_file_are_refused(machine: Machine, world: World) -> None:
    """Missing members, false proofs, proofs of another entry, leaf hashes that are not hex."""
    file = world.publish("acme-demo")
    path = f"/api/v1/files/acme-demo/{file.filename}"
    honest = json.loads(world.get(world.base + path) or b"")
    with opened(machine.registry, world, now=world.now) as view:

        def ask(change: Callable[[dict], object]) -> object:
            document = dict(honest)
            change(document)
            world.override[path] = json.dumps(document).encode()
            return publish.file_state(view, world, "acme-demo", file.filename, now=world.now)

        assert ask(lambda d: None)
        for change in (
            lambda d: d.pop("state"),
            lambda d: d.pop("leaf_hash"),
            lambda d: d.update(leaf_hash="zz"),
            lambda d: d.update(leaf_hash="00" * 32),
            lambda d: d.update(index=3),
            lambda d: d.update(proof="junk"),
            lambda d: d.update(proof=honest["proof"][:-200]),
        ):
            with pytest.raises(EvidenceError):
                ask(change)
        world.override[path] = b"not json"
        with pytest.raises(MalformedError):
            publish.file_state(view, world, "acme-demo", file.filename, now=world.now)
        world.override[path] = None
        assert publish.file_state(view, world, "acme-demo", file.filename, now=world.now) is None


def test_waiting_ends(machine: Machine, world: World, tmp_path: Path) -> None:
    """Listed, withdrawn, forgotten, or too slow: each has its own end."""
    file = read_distribution(wheel(tmp_path))
    published = world.publish("acme-demo", "1.0", data=file.data, list_it=False)
    world.heartbeat()
    said: list[str] = []
    with opened(machine.registry, world, now=world.now) as view:

        def wait() -> publish.FileState:
            return publish.wait_listed(
                view,
                world,
                file,
                now=lambda: world.now,
                sleep=lambda _: None,
                progress=said.append,
                timeout=1,
            )

        with pytest.raises(NetworkError, match="after 1 s"):
            wait()
        assert len(said) == 1
        world.verdict(published, "block")
        with pytest.raises(WithdrawnError):
            wait()
        world.verdict(published)
        world.release()
        assert wait().listed
        world.override[f"/api/v1/files/acme-demo/{file.filename}"] = None
        with pytest.raises(EvidenceError, match="does not know it"):
            wait()


def test_another_key_for_a_signed_project_is_refused(machine: Machine, world: World) -> None:
    """A project with keys: this key is not one of them, and which ones are is said."""
    world.publish("acme-demo")
    with pytest.raises(PolicyError, match=world.publisher.keyid[:16]):
        publish.needs_enrolment(machine.registry, world, {"acme-demo"}, "00" * 32)
    missing = publish.needs_enrolment(
        machine.registry, world, {"acme-demo", "new-demo"}, world.publisher.keyid
    )
    assert [state.project for state in missing] == ["new-demo"]


def test_a_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    """From the environment, from the terminal asked twice, or stored because somebody said so."""
    answers = iter(["one", "two", "", "three", "three"])
    ask = lambda _: next(answers)  # noqa: E731
    for message in ("differ", "empty"):
        with pytest.raises(UsageError, match=message):
            signer.create_key(tmp_path, environment={}, ask=ask)
        assert not list(tmp_path.iterdir())
    key = signer.create_key(tmp_path, environment={}, ask=ask)
    assert key.path.stat().st_mode & 0o077 == 0
    assert signer.open_signer(key, environment={}, ask=lambda _: "three").keyid == key.keyid
    assert signer.open_signer(key, environment={"COUNTERMARK_PASSPHRASE": "three"}).keyid == key.keyid
    with pytest.raises(UsageError, match="wrong passphrase"):
        signer.open_signer(key, environment={"COUNTERMARK_PASSPHRASE": "four"})
    bare = signer.create_key(tmp_path, "bare", no_passphrase=True, environment={}, ask=pytest.fail)
    assert signer.open_signer(bare, environment={}, ask=pytest.fail).keyid == bare.keyid
    assert bare.passphrase_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [b"", b"{}", b"null", b"\xff", b"x" * 20_000])
def test_a_damaged_key_file_is_one_error(tmp_path: Path, damage: bytes) -> None:
    """Empty, foreign, oversized."""
    (tmp_path / "publisher.json").write_bytes(damage)
    with pytest.raises(CountermarkError):
        signer.load_key(tmp_path, "publisher")
