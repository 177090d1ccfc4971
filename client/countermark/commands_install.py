"""The commands of who installs: `verify`, `run` and `proxy`. The engines are verify.py, run.py and proxy.py."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark import clientcerts
from countermark.clientpolicy import Policies
from countermark.console import GREEN, RED, YELLOW, Progress, put, put_json, say
from countermark.credentials import NONE, Credentials, load, shown_to
from countermark.disk import config_home, remove_file, replace_file
from countermark.errors import CountermarkError, NetworkError, UsageError
from countermark.fetch import FileFetcher, HttpFetcher, StatusError
from countermark.limits import ENTRY_TIME_MAX
from countermark.mirrors import fetcher_for
from countermark.pins import Home, Registry
from countermark.policyfile import load_policies
from countermark.values import replace
from countermark.verified import Artifact, Outcome, Refused, Report, Verified, seen_words
from countermark.verify import verify as verify_artifacts

if TYPE_CHECKING:
    from countermark.lockfile import LockFile
    from countermark.logonly import LogOnlyReport
    from countermark.proxy import Proxy

LOCK_NAMES = re.compile(r"uv\.lock|poetry\.lock|pylock(\..+)?\.toml|.*\.txt")
DISTRIBUTIONS = (".whl", ".tar.gz", ".zip")
ARCHIVES = re.compile(
    r".*\.(?:whl|egg|zip|tgz|tbz|txz|tlz|tar(?:\.(?:gz|bz2|xz|lz|lzma|zst))?)", re.IGNORECASE
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
REFUSALS_SHOWN = 20  # the gravest come first; a lock of a thousand pins must not bury them


def pinned(arguments: argparse.Namespace) -> tuple[Home, Registry, list[str]]:
    """The registry a command is about, and the words every result about it carries."""
    home = Home()
    registry = home.registry(arguments.registry or os.environ.get("COUNTERMARK_REGISTRY"))
    return home, registry, registry.admit(os.environ, allow_trial=arguments.allow_trial)


def verify(arguments: argparse.Namespace) -> int:
    _forget(arguments.junit, arguments.sarif)
    if not arguments.files and arguments.environment is None:
        raise UsageError("nothing to verify", hint="give a FILE, or --environment DIR")
    home, registry, remarks = pinned(arguments)
    now = _at(arguments.at, int(time.time()))
    policies = load_policies(home.policy_file, Path.cwd(), os.environ)
    alone = arguments.environment is not None or arguments.log_only or arguments.namespace is not None
    if arguments.attestations and alone:
        raise UsageError("--attestations is of files and locks that the registry lists")
    if arguments.environment is not None:
        return _verify_environment(arguments, home, registry, now=now, policies=policies, remarks=remarks)
    locks, files = _sort(arguments.files)
    if arguments.log_only or arguments.namespace is not None:
        return _verify_log_only(
            arguments, locks, files, registry, now=now, policies=policies, remarks=remarks
        )
    if locks and files:
        raise UsageError("files and locks are verified by separate commands")
    fetcher = fetcher_for(registry)
    read: list[LockFile] = []
    progress = Progress(quiet=arguments.json)
    told: Any = {
        "now": now, "policies": policies, "remarks": remarks, "tick": progress,
        "attestations": arguments.attestations,
    }  # fmt: skip
    if locks:
        from countermark.lockcheck import verify_locks  # noqa: PLC0415  (lazy: a file needs none of this)
        from countermark.lockfile import read_lock  # noqa: PLC0415

        read = [read_lock(path) for path in locks]
        report = verify_locks(read, registry, fetcher, **told)
    else:
        report = verify_artifacts([Artifact.from_path(path) for path in files], registry, fetcher, **told)
    return _deliver(arguments, report, locks or files, locks=read)


def _forget(*reports: Path | None) -> None:
    """Remove what an earlier run said: whoever fails before there is a result leaves none behind."""
    for path in reports:
        if path is not None and path.is_file():
            remove_file(path)


def _deliver(
    arguments: argparse.Namespace, report: Report, given: Sequence[Path], *, locks: Sequence[LockFile] = ()
) -> int:
    """The report in every form that was asked for; its exit code."""
    if arguments.junit is not None or arguments.sarif is not None:
        from countermark import reportfiles  # noqa: PLC0415  (lazy: most checks write none)
        from countermark.spots import Spots  # noqa: PLC0415

        spots = Spots(given, locks, is_environment=arguments.environment is not None)
        if arguments.junit is not None:
            replace_file(arguments.junit, reportfiles.junit(report, spots), mode=0o644)
        if arguments.sarif is not None:
            replace_file(arguments.sarif, reportfiles.sarif(report, spots), mode=0o644)
    if arguments.json:
        put_json(report.to_json())
    else:
        _talk(report, report.outcomes)
    return report.exit_code


def _verify_environment(
    arguments: argparse.Namespace,
    home: Home,
    registry: Registry,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str],
) -> int:
    from countermark.environment import verify_environment  # noqa: PLC0415  (lazy: a file needs none of this)
    from countermark.installed import read_place  # noqa: PLC0415

    if arguments.files or arguments.log_only or arguments.namespace is not None:
        raise UsageError("--environment is verified alone, without files and --log-only")
    place, proxy = read_place(arguments.environment), _proxy(home, registry)
    progress = Progress(quiet=arguments.json)
    report = verify_environment(place, proxy, now=now, policies=policies, remarks=remarks, tick=progress)
    return _deliver(arguments, report, [arguments.environment])


def _verify_log_only(
    arguments: argparse.Namespace,
    locks: Sequence[Path],
    files: Sequence[Path],
    registry: Registry,
    *,
    now: int,
    policies: Policies,
    remarks: Sequence[str],
) -> int:
    """The other question, asked by both its names or not at all: nothing falls back to it."""
    from countermark.logged import asked_namespace  # noqa: PLC0415  (lazy: a listed file needs none of this)
    from countermark.logonly import verify_log_only  # noqa: PLC0415

    namespace = asked_namespace(arguments.log_only, arguments.namespace)
    if locks:
        raise UsageError("a lock pins what a registry lists; --log-only takes files")
    if arguments.junit is not None or arguments.sarif is not None:
        raise UsageError("--log-only verifies nothing, and is written as --json only")
    artifacts = [Artifact.from_path(path, namespace=namespace) for path in files]
    report = verify_log_only(
        artifacts, namespace, registry, fetcher_for(registry), now=now, policies=policies, remarks=remarks
    )
    if arguments.json:
        put_json(report.to_json())
    else:
        _talk_log_only(report)
    return report.exit_code


def _talk_log_only(report: LogOnlyReport) -> None:
    from countermark.logged import NO_TUF, Logged  # noqa: PLC0415

    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for outcome in report.outcomes:
        name = outcome.artifact.name
        if isinstance(outcome, Refused):
            _talk_outcome(outcome)
            continue
        assert isinstance(outcome, Logged)
        put(f"{name}: {outcome.sentence}", colour=YELLOW)
        for text in outcome.remarks:
            say(f"{name}: {text}", colour=YELLOW)
        if outcome.finding is not None:
            say(f"refused: {name}: {outcome.finding}", colour=RED)
            say(f"hint: {outcome.finding.hint}")
    say(
        f"log only: nothing here is verified ({NO_TUF}); log of {report.tree_size} entries, all read, "
        f"{seen_words(report.seen_by, report.age)}",
        colour=YELLOW,
    )


def run(arguments: argparse.Namespace) -> int:
    command = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    try:
        return _run(arguments, command)
    except CountermarkError as error:
        if arguments.json_file is not None:
            document = {"error": str(error), "exit_code": error.exit_code, "exit_code_of": "countermark"}
            replace_file(arguments.json_file, json.dumps(document, sort_keys=True).encode(), mode=0o644)
        say(f"error: {error}", colour=RED)
        if error.hint:
            say(f"hint: {error.hint}")
        say(f"exit code {error.exit_code} is countermark's: the installer was not started")
        return error.exit_code


def _run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    _forget(arguments.json_file)
    from countermark import run as runner  # noqa: PLC0415
    from countermark.configuring import Machine, uv_files  # noqa: PLC0415
    from countermark.installers import plan  # noqa: PLC0415

    machine = Machine(Path.cwd(), Path.home(), os.environ, sys.platform)
    todo = plan(command, folder=machine.folder, own=uv_files(machine))
    home, registry, remarks = pinned(arguments)
    engine = _proxy(home, registry)
    if todo.is_pinned:
        finished = runner.run(
            todo,
            engine,
            registry,
            fetcher_for(registry),
            now=int(time.time()),
            policies=load_policies(home.policy_file, Path.cwd(), os.environ),
            environment=os.environ,
            say=say,
            remarks=remarks,
            allow_build=arguments.allow_build,
            tick=Progress(),
        )
    else:
        finished = runner.run_proxied(
            todo, engine, registry, environment=os.environ, say=say, remarks=remarks
        )
    if arguments.json_file is not None:
        replace_file(arguments.json_file, json.dumps(finished.to_json(), sort_keys=True).encode(), mode=0o644)
    # The proxy said its own as they came.
    refused = [outcome for outcome in runner.refusals(finished.report) if outcome not in engine.outcomes]
    _talk(finished.report, refused, remarks_only=True)
    for sentence in finished.sentences:
        say(sentence, colour=YELLOW)
    say(f"exit code {finished.exit_code} is {finished.whose}'s")
    return finished.exit_code


def proxy(arguments: argparse.Namespace) -> int:
    from countermark import serving  # noqa: PLC0415
    from countermark.team import Team  # noqa: PLC0415

    home, registry, remarks = pinned(arguments)
    # Visitors are who they say they are, and nobody where they say nothing: never who started the proxy.
    host, port = serving.parse_listen(arguments.listen)
    ours = _lent(registry, host) if arguments.with_client_cert else NONE
    if not arguments.with_client_cert:
        _check_visitors_may_read(registry)
    known = _known(_proxy(home, registry, ours))

    def in_their_name(authorization: str | None) -> Proxy:
        shown = shown_to(registry.url, authorization)
        return _proxy(home, registry, replace(shown, certificates=ours.certificates))

    engine = Team(in_their_name, lends=arguments.with_client_cert)
    with serving.listening(engine.answer, host, port, max_body=0) as server:
        # shutdown() waits for the loop, so it must not run inside the loop's own thread.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        for remark in remarks:
            say(remark, colour=YELLOW)
        say(f"verified files of {registry.url} ({known})")
        put(f"{server.url}/simple/")
        server.serve_forever(poll_interval=0.1)
    return 0


def _lent(registry: Registry, host: str) -> Credentials:
    """This machine's certificate for the registry, and no token; UsageError where it must not be lent to others."""
    if host not in LOOPBACK:
        raise UsageError(
            f"--with-client-cert on {host}: everybody who reaches that address would read as this machine does",
            hint="--listen 127.0.0.1:8081, and nginx before it, which asks for certificates itself",
        )
    found = load(os.environ, config_home())
    if found.certificate(registry.url) is None:
        raise UsageError(
            f"this machine has no client certificate for {registry.url}",
            hint=f"countermark trust add {registry.url} --client-cert FILE --client-key FILE",
        )
    return Credentials({}, found.certificates)


def _check_visitors_may_read(registry: Registry) -> None:
    """UsageError: the registry asks for certificates, which no visitor can show it. One that is away is no reason."""
    try:
        HttpFetcher(credentials=NONE).get(f"{registry.url}/tuf/timestamp.json", missing_ok=True)
    except StatusError as error:
        if clientcerts.NEEDED.encode() in error.answer.body:
            raise UsageError(
                f"{error}: no visitor of a proxy can show the registry a certificate of theirs",
                hint="--with-client-cert shows this machine's, for whoever reaches the proxy",
            ) from None
    except NetworkError:
        pass


def _known(proxy: Proxy) -> str:
    """What is known of the registry before anybody asks; one that wants credentials is asked when they come."""
    try:
        report = proxy.check()
    except StatusError as error:
        if error.answer.status in (401, 403):
            return "which asks who you are: credentials are passed on"
        raise
    return f"log of {report.tree_size} entries, {report.freshness}"


def _proxy(home: Home, registry: Registry, credentials: Credentials | None = None) -> Proxy:
    from countermark.filestore import FileStore  # noqa: PLC0415
    from countermark.proxy import Proxy  # noqa: PLC0415

    return Proxy(
        registry,
        _fetcher(registry, credentials),
        FileStore(registry.folder / "files"),
        policies=load_policies(home.policy_file, Path.cwd(), os.environ),
        clock=lambda: int(time.time()),
        say=say,
    )


def _fetcher(registry: Registry, credentials: Credentials | None) -> FileFetcher:
    """The network in somebody's name, this user's unless said; no mirror is asked in a visitor's."""
    if credentials is None or not credentials.authorizations:
        return fetcher_for(registry, credentials)
    return HttpFetcher(credentials=credentials)


def _talk(report: Report, outcomes: Sequence[Outcome], *, remarks_only: bool = False) -> None:
    """The report for people: results on stdout, everything about them on stderr."""
    for remark in report.remarks:
        say(remark, colour=YELLOW)
    for outcome in outcomes:
        if not isinstance(outcome, Refused):
            _talk_outcome(outcome)
    refused = sorted((o for o in outcomes if isinstance(o, Refused)), key=lambda o: -o.exit_code)
    for outcome in refused[:REFUSALS_SHOWN]:
        _talk_outcome(outcome)
    if len(refused) > REFUSALS_SHOWN:
        say(f"{len(refused) - REFUSALS_SHOWN} more are refused; --json lists them all", colour=RED)
    if not remarks_only:
        if report.late:
            say(f"late: {report.late}", colour=YELLOW)
        behind = report.tree_size - report.applied
        say(f"log of {report.tree_size} entries, {behind} not applied yet, {report.believed}")


def _talk_outcome(outcome: Outcome) -> None:
    name = outcome.artifact.name
    if isinstance(outcome, Refused):
        say(f"refused: {outcome.sentence}", colour=RED)
        if outcome.error.hint:
            say(f"hint: {outcome.error.hint}")
        return
    if isinstance(outcome, Verified):
        signed = outcome.signed_by.sentence if outcome.signed_by else "verified here before"
        word, colour = ("verified", GREEN) if outcome.verified else ("let pass", YELLOW)
        put(f"{name}: {word}, entry #{outcome.index}, {signed}", colour=colour)
        for text in (*outcome.remarks, *map(str, outcome.findings)):
            say(f"{name}: {text}", colour=YELLOW)
        for text in outcome.told:
            say(f"{name}: {text}")
        for each in outcome.attested or ():
            say(f"{name}: {each.sentence}")
        return
    put(outcome.sentence, colour=YELLOW)


def _sort(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Locks, and files to verify; a folder means its distributions. Signatures lying beside those are passed over."""
    paths = [each for path in paths for each in (_in_folder(path) if path.is_dir() else [path])]
    locks = [path for path in paths if LOCK_NAMES.fullmatch(path.name)]
    files = [path for path in paths if not LOCK_NAMES.fullmatch(path.name)]
    files = [path for path in files if not path.name.endswith((".attestation", ".asc", ".tlog-proof"))]
    if not locks and not files:
        raise UsageError("nothing to verify")
    return locks, files


def _in_folder(folder: Path) -> list[Path]:
    """The distributions in a folder, by name."""
    archives = [p for p in sorted(folder.iterdir()) if ARCHIVES.fullmatch(p.name) and p.is_file()]
    found = [path for path in archives if path.name.endswith(DISTRIBUTIONS)]
    for path in archives:
        if path not in found:
            raise UsageError(
                f'"{path}": an installer may take it, and no registry lists a file of that kind',
                hint="move it away, or name the files to verify",
            )
    if not found:
        raise UsageError(f'there is no wheel and no source distribution in "{folder}"')
    return found


def _at(text: str | None, now: int) -> int:
    """`--at` moves forward only: a time in the past would revive what has expired."""
    if text is None:
        return now
    try:
        moment = (
            int(text) if text.isdigit() else int(datetime.fromisoformat(text).astimezone(UTC).timestamp())
        )
    except (ValueError, OverflowError):
        raise UsageError(f'"{text}" is not a time', hint="seconds, or 2026-01-31T12:00:00Z") from None
    if moment > ENTRY_TIME_MAX:
        raise UsageError(f'"{text}" is beyond the year 9999')
    if moment < now:
        raise UsageError(f"--at only moves forward; {text} is {now - moment} s in the past")
    return moment
