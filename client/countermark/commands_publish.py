"""The commands of who publishes: `login`, `token`, `sign`, `publish`, `status`. The engine is publish.py."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from countermark import ahead, ambient, devicelogin, jobs, logonlypublish
from countermark import publish as engine
from countermark.commands_install import pinned
from countermark.commands_key import chosen_place
from countermark.console import GREEN, YELLOW, ask, confirm, put, put_json, say
from countermark.disk import replace_file, safe_name
from countermark.distribution import Distribution, distributions, read_distribution
from countermark.errors import CountermarkError, PolicyError, UsageError, worst
from countermark.fetch import HttpFetcher
from countermark.pins import Home, Registry, find_root, normalise_url
from countermark.place import Place
from countermark.policyfile import load_policies
from countermark.projectstate import ProjectState
from countermark.secretstore import find_keyring
from countermark.session import Session
from countermark.signer import add_key, ask_terminal, create_key, has_key, load_key, open_signer
from countermark.statement import Envelope, Signer
from countermark.trust import View, opened
from countermark.values import replace
from countermark.verified import Artifact, Verified
from countermark.verify import verify
from countermark.words import check_root_words


def login(arguments: argparse.Namespace) -> int:
    """Pin the root if there is none, check that the server is that registry, then sign in: by a browser or a code."""
    home, fetcher, url = Home(), HttpFetcher(), normalise_url(arguments.url)
    keyring = find_keyring(arguments.tokens)
    registry = _pinned_by_words(home, fetcher, url, arguments.root_words)
    for remark in registry.admit(os.environ, allow_trial=arguments.allow_trial):
        say(remark)
    session = _by_browser(registry, fetcher) if arguments.code is None else None
    if session is None:
        code = arguments.code or ask("one-time code")
        if not code:
            raise UsageError("no one-time code was given", hint="the operator makes one for you: --code CODE")
        session = engine.sign_in(registry, fetcher, code, now=_now())
    say(session.save(registry, keyring))
    if arguments.json:
        put_json({"account": session.account, "login": session.login, "url": url})
    else:
        put(f"signed in at {url} as {session.login}, account {session.account[:8]}")
    return 0


def _by_browser(registry: Registry, fetcher: HttpFetcher) -> Session | None:
    """A person vouches for this machine at the identity provider. None: the registry has none."""
    waiting = devicelogin.begin(registry, fetcher, now=_now())
    if waiting is None:
        return None
    say(f"open {waiting.url} and compare the code {waiting.user_code}")
    return devicelogin.wait(registry, fetcher, waiting, timer=time.monotonic, sleep=time.sleep)


def _pinned_by_words(home: Home, fetcher: HttpFetcher, url: str, words: str | None) -> Registry:
    """The pin for a URL, made by its words where there is none; words that were given are always compared."""
    known = next((registry for registry in home.registries() if registry.url == url), None)
    if known is not None and not words:
        return known
    words = words or ask("no root is pinned; its twelve words")
    if not words:
        raise PolicyError(
            f"no trusted root for {url}",
            hint=f"countermark login {url} --root-words '...' (ask the operator)",
        )
    if known is None:
        return home.add(url, find_root(fetcher, url, words))
    check_root_words(words, known.info.signed)
    return home.add(url, known.root)  # somebody vouches for what may have been trusted on first use


def token(arguments: argparse.Namespace) -> int:
    registry = Home().registry(arguments.url)
    session = Session.load(registry)
    if arguments.json:
        put_json({"upload_token": session.upload_token, "username": "__token__"})
    else:
        put(session.upload_token)
    return 0


def sign(arguments: argparse.Namespace) -> int:
    home, registry, files = _prepare(arguments)
    fetcher, documents = HttpFetcher(), []
    person = None if arguments.ci else _signer(home, arguments)
    with opened(registry, fetcher, now=_now()) as view:
        signer, session = _signing(view, fetcher, arguments, files, person, uploads=arguments.submit)
        for file in files:
            envelope = file.attest(view.trust_file.origin, signer)
            document: dict[str, object] = {"attestation": str(file.attestation_path), "keyid": signer.keyid}
            if arguments.submit and session is not None and file.namespace:
                document["index"] = _log(view, fetcher, session, file, envelope)
            elif arguments.submit and session is not None:
                document["submitted"] = _submit(registry, fetcher, session, file, envelope)
            documents.append(document)
            if not arguments.json:
                put(f"{file.attestation_path}")
    if arguments.json:
        put_json(documents)
    return 0


def _submit(
    registry: Registry, fetcher: HttpFetcher, session: Session, file: Distribution, envelope: Envelope
) -> str:
    """Hand one statement in, and say until when it waits for its file."""
    expires = ahead.submit(registry, fetcher, session, file, envelope)
    if expires is None:
        say(f"{file.filename}: in the log already, nothing to submit")
        return "logged"
    until = datetime.fromtimestamp(expires, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
    say(f"{file.filename}: statement submitted; upload the file with any tool until {until}")
    return until


def _log(view: View, fetcher: HttpFetcher, session: Session, file: Distribution, envelope: Envelope) -> int:
    """Log one statement of a namespace, and say what such an entry is worth."""
    index = logonlypublish.log(view, fetcher, session, file, envelope, now=_now())
    say(
        f"{file.filename}: entry #{index} of {file.namespace}, proof checked; in the log only: no TUF, no verdict"
    )
    return index


def _logged(
    view: View, fetcher: HttpFetcher, session: Session, file: Distribution, envelope: Envelope, *, json: bool
) -> dict[str, object]:
    """One file of a namespace, told; as JSON never verified. Where people must approve it, the command they run."""
    index = _log(view, fetcher, session, file, envelope)
    if not json:
        put(f"{file.filename}  {file.project}  entry #{index}", colour=GREEN)
    if ProjectState.fetch(fetcher, view.registry, file.project).approvals:
        say(
            f"an owner looks at it and signs: countermark approve {file.project} {file.name.version} FILE ..."
        )
    return {"filename": file.filename, "index": index, "namespace": file.namespace, "verified": False}


def publish(arguments: argparse.Namespace) -> int:
    """Sign and hand in each file, wait until it is listed, then verify it as every installer will."""
    home, registry, files = _prepare(arguments)
    fetcher = HttpFetcher()
    person = None if arguments.ci else _signer(home, arguments)
    uploaded, documents = [], list[dict[str, object]]()
    with opened(registry, fetcher, now=_now()) as view:
        signer, session = _signing(view, fetcher, arguments, files, person, uploads=True)
        assert session is not None
        for file in files:
            envelope = file.attest(view.trust_file.origin, signer)
            if file.namespace:
                documents.append(_logged(view, fetcher, session, file, envelope, json=arguments.json))
            else:
                started = time.perf_counter()
                uploaded.append((file, _uploaded(view, fetcher, session, file, envelope), started))
    # The view is closed, and with it the lock on this registry: a scan may take its time.
    listed = []
    for file, answer, started in uploaded:
        state = engine.wait_listed(
            view, fetcher, file, now=_now, sleep=time.sleep, progress=say, said=answer.state
        )
        if state.staged:
            documents.append(_staged(file, answer, state, json=arguments.json))
        else:
            listed.append((file, answer, (time.perf_counter() - started) * 1000))
    exit_code = 0
    if listed:
        # Listed: the newest view must show it, as every installer will see it.
        report = verify(
            [Artifact.from_path(file.path) for file, _, _ in listed],
            registry,
            fetcher,
            now=_now(),
            policies=load_policies(home.policy_file, Path.cwd(), os.environ),
        )
        for (file, answer, milliseconds), outcome in zip(listed, report.outcomes, strict=True):
            if isinstance(outcome, Verified):
                documents.append(_proved(registry, file, answer, milliseconds, outcome, json=arguments.json))
            else:
                say(f"{file.filename}: published, but {getattr(outcome, 'error', 'not verified')}")
        exit_code = report.exit_code
    if arguments.json:
        put_json({"artifacts": documents, "exit_code": exit_code})
    return exit_code


def _uploaded(
    view: View, fetcher: HttpFetcher, session: Session, file: Distribution, envelope: Envelope
) -> engine.Uploaded:
    """Upload one file with its statement, and say what the registry answered."""
    attestation = envelope.to_json()
    answer = engine.upload(view, fetcher, session, file, attestation, now=_now(), timer=time.perf_counter)
    say(f"{file.filename}: {_proof_words(answer)}; {answer.message or answer.state}")
    return answer


def _proved(
    registry: Registry,
    file: Distribution,
    answer: engine.Uploaded,
    milliseconds: float,
    outcome: Verified,
    *,
    json: bool,
) -> dict[str, object]:
    """A file that is listed and verified, told with its times."""
    url = f"{registry.url}/simple/{file.name.project}/"
    if not json:
        put(
            f"{file.filename}  {url}  entry #{outcome.index}  "
            f"proof in {answer.milliseconds:.0f} ms, listed in {milliseconds:.0f} ms, "
            f"{'verified' if outcome.verified else 'let pass'}",
            colour=GREEN,
        )
    times = {"milliseconds_listed": milliseconds, "milliseconds_proof": answer.milliseconds}
    return outcome.to_json() | times | {"url": url}


def _staged(
    file: Distribution, answer: engine.Uploaded, state: engine.FileState, *, json: bool
) -> dict[str, object]:
    """A file that only people are waited for: said, with the command they run. As JSON: not verified yet."""
    if not json:
        put(f"{file.filename}  entry #{answer.index}  {state.message}", colour=YELLOW)
    say(f"an owner looks at it and signs: countermark approve {file.name.project} {file.name.version}")
    return {
        "approvals": state.approvals,
        "filename": file.filename,
        "index": answer.index,
        "message": state.message,
        "verified": False,
    }


def status(arguments: argparse.Namespace) -> int:
    _, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    fetcher, codes, documents = HttpFetcher(), [0], []
    files = [read_distribution(path) for path in distributions(arguments.files)]
    with opened(registry, fetcher, now=_now()) as view:
        pass  # the proofs below are checked against its trust file; waiting needs no lock
    for file in files:
        try:
            state = _state(view, fetcher, file, arguments)
        except CountermarkError as error:
            codes.append(error.exit_code)
            told = str(error)
            say(told if file.filename in told else f"{file.filename}: {told}")
            documents.append({"error": str(error), "exit_code": error.exit_code, "filename": file.filename})
            continue
        document = {key: value for key, value in vars(state).items() if key != "proof"}
        documents.append(document | {"filename": file.filename, "proof": state.proof is not None})
        if state.proof is not None and arguments.proofs is not None:
            replace_file(arguments.proofs / safe_name(f"{file.filename}.tlog-proof"), state.proof, mode=0o644)
        if not arguments.json:
            proof = "proof checked" if state.proof else "no proof yet"
            put(
                f"{file.filename}: {state.state}, {state.standing}{state.decided}, entry #{state.index}, {proof}"
            )
            for line in _people(state):
                put(f"    {line}")
    if arguments.json:
        put_json({"artifacts": documents, "exit_code": worst(codes)})
    return worst(codes)


def _state(
    view: View, fetcher: HttpFetcher, file: Distribution, arguments: argparse.Namespace
) -> engine.FileState:
    state = _known(view, fetcher, file)  # a file that was never handed in is nobody's broken promise
    if arguments.wait:
        state = engine.wait_listed(view, fetcher, file, now=_now, sleep=time.sleep, progress=say)
    if state.proof is not None and state.index is not None:
        engine.check_logged(view, fetcher, file, state.proof, state.index, now=_now())
    return state


def _people(state: engine.FileState) -> list[str]:
    """Who has approved a file that waits, and who could."""
    if state.approvals is None:
        return []
    people = {
        name: ", ".join(map(str, state.approvals.get(name, [])))
        for name in ("approved", "rejected", "missing")
    }
    return [state.message, *(f"{name}: {accounts}" for name, accounts in people.items() if accounts)]


def _known(view: View, fetcher: HttpFetcher, file: Distribution) -> engine.FileState:
    state = engine.file_state(view, fetcher, file.name.project, file.filename, now=_now())
    if state is None:
        raise PolicyError(f"{view.registry.url} has never taken {file.filename}")
    return state


def _prepare(arguments: argparse.Namespace) -> tuple[Home, Registry, list[Distribution]]:
    """The registry and the distributions."""
    files = [read_distribution(path) for path in distributions(arguments.files)]
    if arguments.namespace is not None:
        namespace = Place.parse(f"{arguments.namespace}/*").namespace
        files = [replace(file, namespace=namespace) for file in files]
    home, registry, remarks = pinned(arguments)
    for remark in remarks:
        say(remark)
    return home, registry, files


def _signing(
    view: View,
    fetcher: HttpFetcher,
    arguments: argparse.Namespace,
    files: Sequence[Distribution],
    person: Signer | None,
    *,
    uploads: bool,
) -> tuple[Signer, Session | None]:
    """Who signs, enrolled for all of it, and with what they upload: a person, or this job with a key of its own."""
    if person is not None:
        session = Session.load(view.registry) if uploads else None
        _enrol(view, fetcher, arguments, files, person)
        return person, session
    wanted = jobs.audience(view.registry, fetcher)
    token = ambient.ambient_token(os.environ, fetcher, wanted)
    projects = sorted({file.project for file in files})
    run, session, indexes = jobs.enrol_run(view, fetcher, token, projects, now=_now())
    for project, index in indexes.items():
        say(f"key {run.keyid[:16]} of this run enrolled for {project}, entry #{index}, for fifteen minutes")
    return run, session


def _signer(home: Home, arguments: argparse.Namespace) -> Signer:
    try:
        key = load_key(home.keys, arguments.key)
    except UsageError:
        if has_key(home.keys, arguments.key):
            raise
        return _new_signer(home, arguments)
    return open_signer(key)


def _new_signer(home: Home, arguments: argparse.Namespace) -> Signer:
    """A fresh key, opened by the passphrase that was typed for it a moment ago; or one the ssh-agent holds."""
    if not arguments.yes and (where := chosen_place()) is not None:
        return open_signer(add_key(home.keys, arguments.key, where))
    typed: list[str] = []

    def asked(prompt: str) -> str:
        typed.append(ask_terminal(prompt))
        return typed[-1]

    key = create_key(home.keys, arguments.key, no_passphrase=arguments.no_passphrase, ask=asked)
    say(f"made key {key.name} ({key.keyid[:16]}) in {key.path}")
    return open_signer(key, ask=lambda _: typed[-1])


def _enrol(
    view: View,
    fetcher: HttpFetcher,
    arguments: argparse.Namespace,
    files: Sequence[Distribution],
    signer: Signer,
) -> None:
    """Enrol the key where it is missing, after one question about all of it."""
    projects = {file.project for file in files}
    missing = engine.needs_enrolment(view.registry, fetcher, projects, signer.keyid)
    if not missing:
        return
    names = ", ".join(state.project for state in missing)
    if not arguments.yes:
        say(f"key {signer.keyid} will sign for {names} from now on")
        say("it stays in the public log for ever, and so does your account id; it may identify you")
        if not confirm(f"enrol it for {names}?"):
            raise PolicyError(f"the key is not enrolled for {names}", hint="--yes enrols it without asking")
    session = Session.load(view.registry)
    for state in missing:
        index = engine.enrol(view, fetcher, session, signer, state, now=_now())
        say(f"key {signer.keyid[:16]} enrolled for {state.project}, entry #{index}, first seen there")


def _proof_words(answer: engine.Uploaded) -> str:
    if answer.checkpoint is None:
        return f"taken in {answer.milliseconds:.0f} ms, proof to follow"
    witnesses = ", ".join(sorted(answer.checkpoint.cosignatures)) or "no witness"
    return f"entry #{answer.index}, proof checked in {answer.milliseconds:.0f} ms, cosigned by {witnesses}"


def _now() -> int:
    return int(time.time())
