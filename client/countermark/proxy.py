"""Proxy: a simple index on this machine that offers only what was verified, for installs that pin no hash.

    countermark proxy --listen 127.0.0.1:8080
    pip install --index-url http://127.0.0.1:8080/simple/ acme

    GET /simple/acme/                                         hashes come from TUF and the log
    GET /packages/acme/acme-1.0-py3-none-any.whl              stored, hashed, then served
    GET /packages/acme/acme-1.0-py3-none-any.whl.metadata     if its hash is the logged one
    GET /                                                     for people: the view, and the exceptions in force

Which files there are, and what each is: offers.py. A judgement holds for a minute, so a hold acts here two minutes
after its entry at the latest. Projects that are asked for while others are being judged are judged together
afterwards, against one view of the registry; each is looked up once, whoever asks. Bytes that were verified stay on
this disk (filestore.py), bytes that were not never get a name, and no byte of the registry's goes out unverified.

Refusals are made where installers show them: at the file's URL, 409 for a contradiction and 403 for the rest, with
the reason (proxyanswers.py).

A file above 64 MiB goes out while it comes in; its last 64 KiB are held back until the hash is right, else the
connection is cut, so that no archive is complete whose bytes are wrong.

Not promised: that the registry named all of a project's files, or that an installer asks nobody else. `run` gives
its child no other index.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import IO
from urllib.parse import quote, unquote

from countermark import proxyanswers
from countermark.clientpolicy import Policies
from countermark.console import plain
from countermark.distribution import MEMBER_MAX_BYTES
from countermark.errors import CountermarkError, EvidenceError, MalformedError, NetworkError, WithdrawnError
from countermark.evidence import Evidence, EvidenceClass, kept_at, save
from countermark.fetch import FileFetcher, StatusError
from countermark.filestore import FileStore, Incoming
from countermark.limits import FETCH_MAX_BYTES, PROXY_HELD_BACK, PROXY_JUDGED_FOR, PROXY_WHOLE_BYTES
from countermark.names import normalise_project
from countermark.offers import Hint, Judged, Offer, document, judge, look_up, unjudged
from countermark.pins import Registry
from countermark.proxyanswers import told
from countermark.serving import Request, Response, Stream
from countermark.simplepage import JSON_TYPE, content_type, encode_page, negotiate
from countermark.values import replace
from countermark.verified import Artifact, LetPass, Outcome, Refused, Report, TamperedError
from countermark.verify import verify

PIECE_MAX = 64 * 1024  # bytes read or sent at a time
FILE_TYPE = "application/octet-stream"
METADATA_TYPE = "text/plain; charset=utf-8"
LASTING = frozenset({6, 7})  # exit codes that no later success of the same file undoes
METADATA = ".metadata"
NOT_KEPT = {"Cache-Control": "no-store"}
WITHDRAWN = frozenset({403, 410, 451})  # what a registry answers for a file it withholds


class Proxy:
    """The engine: `answer` takes a request and gives a response. Safe to call from many threads."""

    def __init__(
        self,
        registry: Registry,
        fetcher: FileFetcher,
        store: FileStore,
        *,
        policies: Policies,
        clock: Callable[[], int],
        say: Callable[[str], None],
    ) -> None:
        self._registry, self._fetcher, self._store = registry, fetcher, store
        self._policies, self._clock, self._say = policies, clock, say
        self._judged: dict[str, Judged] = {}
        self._judging, self._noting = threading.Lock(), threading.Lock()
        self._bringing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._asking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._waiting: dict[str, list[Hint]] = {}  # looked up, to be judged with the next view
        self._answers: dict[str, Judged] = {}  # of those that waited, until they have seen it
        self._outcomes: dict[str, Outcome] = {}  # what was asked for, and what came of it
        self._report: Report | None = None

    # --- for who runs it ----------------------------------------------------------------------------------
    def check(self) -> Report:
        """One view of the registry, before anything is asked for; its errors are raised."""
        self._report = verify([], self._registry, self._fetcher, now=self._clock(), policies=self._policies)
        return self._report

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What was served and refused until now."""
        with self._noting:
            return tuple(self._outcomes.values())

    def report(self) -> Report:
        """The same, and of which view of the registry it is said."""
        return replace(self._report or self.check(), outcomes=self.outcomes)

    def withheld(self) -> list[str]:
        """What was left off the pages that were asked for, in words."""
        found = [refused for judged in self._judged.values() for refused in judged.refused()]
        return [f"not offered: {told(refused.artifact.filename, refused.error)}" for refused in found]

    def judged(self, project: str) -> Judged | None:
        """What may be had of a project, as of a minute ago at most; None when nobody knows it."""
        known = self._recent(project)
        if known is not None:
            return known
        with self._asking[project]:
            known = self._recent(project)  # somebody else may have asked meanwhile
            if known is not None:
                return known
            try:
                hints = look_up(project, self._registry, self._fetcher)
            except CountermarkError as error:
                return unjudged(project, (), error, self._clock())
            if hints is None:
                return None
            self._waiting[project] = hints
            with self._judging:
                if project not in self._answers:
                    self._waiting[project] = hints  # again, should the one who took it have failed
                    self._judge_the_waiting()
                return self._answers.pop(project)

    def _judge_the_waiting(self) -> None:
        """One view for all who came while the last one was open."""
        waiting = {project: self._waiting.pop(project) for project in list(self._waiting)}
        found, report = judge(
            waiting, self._registry, self._fetcher, now=self._clock(), policies=self._policies
        )
        self._answers |= found
        if report is not None:  # what could not be judged is tried again
            self._judged |= found
            self._report = report

    def open(self, offer: Offer) -> IO[bytes]:
        """The bytes of a file that may be had: from this disk, or fetched, hashed and kept there first."""
        with self._bringing[offer.artifact.sha256]:
            return self._store.open(offer.artifact.sha256) or self._bring(offer)

    # --- requests -----------------------------------------------------------------------------------------
    def answer(self, request: Request) -> Response:
        """Answer one request. Nothing that goes wrong with the registry is a 5xx."""
        parts = [unquote(part) for part in request.path.split("/")[1:]]
        try:
            if request.method not in ("GET", "HEAD"):
                return Response(405, b"this index is read-only\n")
            if len(parts) in (2, 3) and parts[0] == "simple" and parts[1] and not any(parts[2:]):
                return self._page(parts[1], request, slash=len(parts) == 3)
            if len(parts) == 3 and parts[0] == "packages":
                return self._package(parts[1], parts[2], request)
            if parts == [""]:
                return self._front()
        except MalformedError:
            pass  # a name that is none
        return Response(404, b"there is /simple/PROJECT/ here, and the files it links to\n")

    def _front(self) -> Response:
        """For people: whose files these are, and which exceptions are in force. Who may not read is not told."""
        try:  # the view could be this machine's own, from its disk: the registry says who may see it
            self._fetcher.get(f"{self._registry.metadata_url}/timestamp.json", max_bytes=FETCH_MAX_BYTES)
            report = self._report or self.check()
        except CountermarkError as error:
            return proxyanswers.closed(error) or proxyanswers.refusal(error, self._registry.url)
        view = f"log of {report.tree_size} entries, {report.believed}"
        excused = self._policies.exception_words(self._clock()) or ("no exception is in force",)
        lines = (f"verified files of {self._registry.url} ({view}), below /simple/", *excused)
        return Response(200, "".join(f"{plain(line)}\n" for line in lines).encode(), headers=NOT_KEPT)

    def _page(self, name: str, request: Request, *, slash: bool) -> Response:
        project = normalise_project(name)
        if project != name or not slash:
            return Response(301, headers={"Location": f"/simple/{project}/"})
        media_type = negotiate(request.headers.get("accept"))
        if media_type is None:
            return Response(406, f"the page is served as {JSON_TYPE} and as HTML\n".encode())
        judged = self.judged(project)
        if judged is None:
            return Response(404, f"{self._registry.url} knows no project {project}\n".encode())
        if judged.error is not None:
            if (closed := proxyanswers.closed(judged.error)) is not None:
                return closed
            self._note(Refused(Artifact(project, "", "", ""), judged.error))
            if not judged.offers:  # nobody can name a version: uv and poetry stop at 409 and show the reason
                return proxyanswers.refusal(judged.error, self._registry.url, status=409)
        for refused in judged.refused():
            if refused.exit_code == EvidenceError.exit_code or not judged.served:
                self._note(refused)
        body = encode_page(document(project, judged), media_type)
        tag = hashlib.sha256(body).hexdigest()
        return proxyanswers.found(
            request, body, content_type(media_type), tag, until=_until(judged), varies=True
        )

    def _package(self, project: str, filename: str, request: Request) -> Response:
        is_metadata = filename.endswith(METADATA)
        filename = filename.removesuffix(METADATA)
        judged = self.judged(normalise_project(project))
        offer = None if judged is None else judged.named(filename)
        if judged is None or offer is None:
            error = judged.error if judged is not None else None
            if (closed := proxyanswers.closed(error)) is not None:
                return closed
            if error is not None:
                return proxyanswers.refusal(error, self._registry.url)
            return Response(404, f"no file {filename}\n".encode())
        error = offer.error
        if error is None:
            try:
                give = self._metadata if is_metadata else self._artifact
                return give(offer, request, _until(judged))
            except CountermarkError as found:
                error = found
            except OSError as found:  # ours: what comes from the network has its own errors
                error = NetworkError(f"{filename}: this machine's disk: {found.strerror or found}")
        self._note(Refused(offer.artifact, error))
        return proxyanswers.refusal(error, self._registry.url, about=offer.artifact.filename)

    # --- bytes --------------------------------------------------------------------------------------------
    def _artifact(self, offer: Offer, request: Request, until: int | None) -> Response:
        sha256, length = offer.artifact.sha256, offer.length
        if request.method == "HEAD":
            return proxyanswers.found(request, Stream(length, iter(())), FILE_TYPE, sha256)
        file = self.open(offer) if length <= PROXY_WHOLE_BYTES else self._store.open(sha256)
        self._note(offer.outcome)
        if file is not None:
            return proxyanswers.found(request, Stream(length, _pieces(file)), FILE_TYPE, sha256, until=until)
        passing = proxyanswers.found(request, Stream(length, self._passing(offer)), FILE_TYPE, sha256)
        return proxyanswers.unbuffered(passing)

    def _bring(self, offer: Offer) -> IO[bytes]:
        """Fetch, store, hash; only then it has a name."""
        with self._store.incoming() as arriving:
            for piece in self._upstream(offer, max_bytes=offer.length + PIECE_MAX):
                arriving.write(piece)
                if arriving.lost is not None:
                    break
            else:
                self._compare(offer, arriving)
            return self._store.keep(arriving)

    def _passing(self, offer: Offer) -> Iterator[bytes]:
        """A large file on its way through. Its end follows when its hash is known to be right."""
        with self._store.incoming() as arriving:
            held = bytearray()
            try:
                for piece in self._upstream(offer, max_bytes=offer.length + PIECE_MAX):
                    arriving.write(piece)
                    if arriving.length > offer.length:
                        break
                    held += piece
                    if len(held) > PROXY_HELD_BACK:
                        yield bytes(held[:-PROXY_HELD_BACK])
                        del held[:-PROXY_HELD_BACK]
                self._compare(offer, arriving)
            except CountermarkError as error:
                self._note(Refused(offer.artifact, error))
                raise
            # It is right, and goes on though nothing is kept here.
            with contextlib.suppress(NetworkError, OSError):
                self._store.keep(arriving).close()
            yield bytes(held)

    def _upstream(self, offer: Offer, *, max_bytes: int) -> Iterator[bytes]:
        url = f"{self._registry.url}/packages/{offer.artifact.project}/{quote(offer.artifact.filename)}"
        try:
            yield from self._fetcher.chunks(url, max_bytes=max_bytes)
        except StatusError as error:
            raise _given_up(offer, error) from error

    def _compare(self, offer: Offer, arriving: Incoming) -> None:
        """(3) of verify.py for bytes that came now. What contradicts is remembered and refused from here on."""
        wanted = offer.artifact
        if (arriving.sha256, arriving.length) == (wanted.sha256, offer.length):
            return
        came = replace(wanted, sha256=arriving.sha256, length=arriving.length)
        report = verify([came], self._registry, self._fetcher, now=self._clock(), policies=self._policies)
        (outcome,) = report.outcomes  # refused in every mode, with both hashes and an evidence file
        error = outcome.error if isinstance(outcome, Refused) else None
        if error is None or error.exit_code != EvidenceError.exit_code:
            error = TamperedError(
                f"{wanted.filename} is sha256:{arriving.sha256}, the log says sha256:{wanted.sha256}"
            )
        self._remember(replace(offer, error=error))
        raise error

    def _metadata(self, offer: Offer, request: Request, until: int | None) -> Response:
        sha256 = offer.metadata_sha256
        if sha256 is None:
            return Response(404, f"no metadata of {offer.artifact.filename} is offered\n".encode())
        with self._bringing[sha256]:
            if (kept := self._store.open(sha256)) is not None:
                with kept:
                    raw = kept.read()
            else:
                raw = self._bring_metadata(offer, sha256)
        return proxyanswers.found(request, raw, METADATA_TYPE, sha256, until=until)

    def _bring_metadata(self, offer: Offer, sha256: str) -> bytes:
        """Fetch, hash, store, like a file."""
        filename = offer.artifact.filename
        url = f"{self._registry.url}/packages/{offer.artifact.project}/{quote(filename)}{METADATA}"
        try:
            raw = self._fetcher.get(url, max_bytes=MEMBER_MAX_BYTES) or b""
        except StatusError as error:
            raise _given_up(offer, error) from error
        found = hashlib.sha256(raw).hexdigest()
        if found != sha256:
            false = TamperedError(
                f"the metadata of {filename} is sha256:{found}, its entry in the log says sha256:{sha256}"
            )
            kept = Evidence(EvidenceClass.OBSERVATION, [str(false)], {"metadata": raw}, self._registry.url)
            path = save(kept, self._registry.folder / "evidence", time=self._clock())
            false.hint = kept_at(path)
            raise false
        with self._store.incoming() as arriving:
            arriving.write(raw)
            with contextlib.suppress(NetworkError):  # it is right, and goes out though nothing is kept here
                self._store.keep(arriving).close()
        return raw

    # --- judgements ---------------------------------------------------------------------------------------
    def _recent(self, project: str) -> Judged | None:
        judged = self._judged.get(project)
        is_recent = judged is not None and 0 <= self._clock() - judged.at < PROXY_JUDGED_FOR.total_seconds()
        return judged if is_recent else None

    def _remember(self, offer: Offer) -> None:
        judged = self._judged.get(offer.artifact.project)
        if judged is not None:
            offers = {**judged.offers, offer.artifact.filename: offer}
            self._judged[offer.artifact.project] = replace(judged, offers=offers)

    def _note(self, outcome: Outcome) -> None:
        """Keep what came of a file, once; what was false or withdrawn stays so."""
        name = outcome.artifact.name
        with self._noting:
            before = self._outcomes.get(name)
            if before is not None and before.exit_code in (outcome.exit_code, *LASTING):
                return
            self._outcomes[name] = outcome
        if isinstance(outcome, Refused):
            self._say(f"refused: {told(outcome.artifact.filename, outcome.error)}")
            if outcome.error.hint:
                self._say(f"hint: {outcome.error.hint}")
        elif isinstance(outcome, LetPass):
            self._say(f"{name}: let pass: {outcome.error} ({outcome.because})")
        else:
            for text in (*outcome.remarks, *map(str, outcome.findings)):
                self._say(f"{name}: {text}")


def _given_up(offer: Offer, error: StatusError) -> CountermarkError:
    """A registry that refuses a file is obeyed, also before TUF shows why."""
    name, answer = offer.artifact.filename, error.answer
    if answer.status in WITHDRAWN:
        return WithdrawnError(f"{name}: the registry gives it to nobody: {plain(answer.reason)}")
    return NetworkError(f"{name}: {error}")


def _until(judged: Judged) -> int | None:
    """The last second of a judgement; None where nothing could be judged, which is tried again at once."""
    return None if judged.error else judged.at + int(PROXY_JUDGED_FOR.total_seconds()) - 1


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_MAX):
            yield piece
