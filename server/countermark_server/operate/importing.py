"""`import`: existing history into the log, from a list of files.

    acme 1.0 acme-1.0-py3-none-any.whl 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03 1421

A MANIFEST is such lines, in the order in which they shall be logged; blank lines and lines that begin with `#` are
left out, names may be in any spelling. What the log knows already with the same hash is left out as well. What is
left is bound by one `import` entry, or several of at most 65,536 lines; the log's process appends the lines
(log/backfill.py), and this command watches.

So it may be killed at any moment and run again: an import that is open is waited for, and of the rest only what the
log does not know is imported. A second run over the same MANIFEST appends nothing.

A line that can never be logged (no file name, another hash under a known name, a project that signs) is unfit:
then nothing is imported, unless the caller asks to leave such lines out.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from countermark import manifest, rules
from countermark.errors import CountermarkError, MalformedError, NetworkError, PolicyError, UsageError
from countermark.manifest import ZERO_NONCE, Line, format_manifest
from countermark.names import normalise_project, normalise_version
from countermark.rules_import import why_passed_over
from countermark.statement import Signer, Statement, sign
from countermark_server import db, proposal
from countermark_server.asking import Answers
from countermark_server.errors import ServerError
from countermark_server.published import Published
from countermark_server.ruleview import SqlView
from countermark_server.stores.blobs import Blobs

LOOK = 0.1  # seconds between two looks at how far the log is
TELL = 1.0  # seconds between two lines of progress
PATIENCE = 30.0  # seconds without any progress after which we say so and stop; the import itself goes on
AT_ONCE = 2000  # lines whose state is asked for in one go
SHOWN = 20  # unfit lines that are named
TRIES = 3  # another import may come first

Say = Callable[[str], None]


@dataclass
class Summary:
    """What a run found and did; `--json` prints it."""

    lines: int = 0  # in MANIFEST, comments and repetitions aside
    repeated: int = 0
    known: int = 0  # in the log already, with this hash
    unfit: int = 0
    imports: list[int] = field(default_factory=list)  # indexes of import entries
    recorded: int = 0  # by this run
    passed: dict[str, int] = field(default_factory=dict)  # lines passed over by this run, by reason
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """One document."""
        rate = round(self.recorded / self.seconds, 1) if self.recorded and self.seconds else None
        return {**vars(self), "seconds": round(self.seconds, 3), "entries_per_second": rate}


@dataclass(frozen=True)
class Unfit:
    """A line that can't be imported, and why."""

    number: int
    reason: str


@dataclass
class Read:
    """A MANIFEST, read: its lines, and what was wrong."""

    lines: list[Line] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of each line in the file
    repeated: int = 0
    unfit: list[Unfit] = field(default_factory=list)


def read_list(rows: Iterable[bytes]) -> Read:
    """The lines of a MANIFEST, normalised; the first of a file that is named twice counts."""
    read, seen = Read(), dict[tuple[str, str], str]()
    for number, raw in enumerate(rows, start=1):
        if not raw.strip() or raw.startswith(b"#"):
            continue
        try:
            line = _line(raw)
        except MalformedError as error:
            read.unfit.append(Unfit(number, str(error)))
            continue
        name = (line.project, line.name.normalised)
        before = seen.setdefault(name, line.sha256)
        if before != line.sha256:
            read.unfit.append(Unfit(number, f"{line.filename} stands here twice, with two hashes"))
        elif len(seen) == len(read.lines):
            read.repeated += 1
        else:
            read.lines.append(line)
            read.numbers.append(number)
    return read


def _line(raw: bytes) -> Line:
    if len(raw) > manifest.LINE_MAX_BYTES:
        raise MalformedError(f"more than {manifest.LINE_MAX_BYTES} bytes")
    try:
        parts = raw.decode("ascii").split()
    except UnicodeDecodeError:
        raise MalformedError("not ASCII") from None
    if len(parts) != 5 or not parts[4].isdigit() or len(parts[4]) > 16:
        raise MalformedError("not project, version, file name, SHA-256 and length in bytes")
    project, version, filename, sha256, length = parts
    line = Line(normalise_project(project), normalise_version(version), filename, sha256.lower(), int(length))
    return line.check()


class Importer:
    """One run over one list."""

    def __init__(
        self,
        engine: Engine,
        blobs: Blobs,
        published: Published,
        *,
        origin: str,
        signer: Signer,
        source: str,
        say: Say,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wait: float = PATIENCE,
    ) -> None:
        self._engine, self._blobs, self._published = engine, blobs, published
        self._origin, self._signer, self._source = origin, signer, source
        self._say, self._clock, self._sleep, self._monotonic = say, clock, sleep, monotonic
        self._wait = wait
        self._answers = Answers(engine)

    def run(self, read: Read, *, skip_unfit: bool = False, abandon: bool = False) -> Summary:
        """Import what the log does not know. PolicyError: unfit lines, nothing was imported.

        `abandon`: an import that is open now is ended by the first of ours instead of waited for.
        """
        started = self._monotonic()
        self._await_proposed()
        if not abandon:
            self._follow()
        summary = Summary(len(read.lines), read.repeated)
        fit, unfit = self._sort(read, summary)
        summary.unfit = len(unfit)
        for each in unfit[:SHOWN]:
            self._say(f"line {each.number}: {each.reason}")
        if unfit and not skip_unfit:
            raise PolicyError(
                f"{len(unfit)} lines can't be imported; nothing was",
                hint="mend the list, or leave them out with --skip-unfit",
            )
        for part in manifest.parts(fit):
            index = self._begin(part)
            summary.imports.append(index)
            self._say(f"import #{index}: {len(part)} lines")
            self._follow()
            self._count(part, index, summary)
        if not summary.imports:
            self._say("nothing to import: the log knows these files")
        summary.seconds = self._monotonic() - started
        return summary

    def _await_proposed(self) -> None:
        """Wait for imports that an earlier run proposed, so that this one knows what they bring."""
        table = db.proposal
        query = select(table.c.id).where(table.c.type == "import", table.c.state == proposal.PENDING)
        with db.read(self._engine) as connection:
            asked = list(connection.execute(query).scalars())
        for each in asked:
            self._sequenced(self._answers.outcome(each, seconds=self._wait))

    @staticmethod
    def _sequenced(outcome: proposal.Outcome) -> proposal.Outcome:
        """NetworkError while the log has not looked at a proposal."""
        if outcome.state == proposal.PENDING:
            raise NetworkError(
                "the import is proposed, and not in the log yet", hint="is `work log` running?"
            )
        return outcome

    def _sort(self, read: Read, summary: Summary) -> tuple[list[Line], list[Unfit]]:
        """What is to be imported, and what can't be."""
        fit, unfit = list[Line](), list(read.unfit)
        numbered = zip(read.lines, read.numbers, strict=True)
        with db.read(self._engine) as connection:
            for chunk in _chunks(numbered):
                view = _view(connection, [line for line, _ in chunk])
                for line, number in chunk:
                    file = view.get(manifest.file_key(line))
                    reason = why_passed_over(view, line, int(self._clock()))
                    if file is not None and file["sha256"] == line.sha256:
                        summary.known += 1
                    elif file is not None:
                        said = f"entry {file['index']} says {file['sha256']}, the list {line.sha256}"
                        unfit.append(Unfit(number, f"{line.filename}: {said}"))
                    elif reason is not None:
                        unfit.append(Unfit(number, f"{line.filename}: project {line.project}: {reason}"))
                    else:
                        fit.append(line)
        return fit, sorted(unfit, key=lambda each: each.number)

    def _begin(self, part: Sequence[Line]) -> int:
        """Manifest and import entry; returns its index once it is sequenced."""
        self._blobs.put(ZERO_NONCE + format_manifest(part))
        # Kept. If we stop here a blob lies there that no entry names.
        for _ in range(TRIES):
            with db.write(self._engine) as connection:
                before = _opened(connection)
                prev = None if before is None else before["head"]
                said = manifest.predicate(part, origin=self._origin, prev=prev, source=self._source)
                subject = f"import:{said['manifest_sha256']}"
                envelope = sign(Statement.about(subject, "import", said), self._signer).to_dict()
                asked = proposal.propose(connection, "import", envelope, {}, now=int(self._clock()))
            # Proposed. If we stop here the log takes it and its lines all the same.
            try:
                outcome = self._answers.wait_for(asked, seconds=self._wait)
            except ServerError as error:
                if error.code == "prev-stale":
                    self._follow()
                    continue
                raise PolicyError(f"the log refused the import: {error.detail}") from None
            index = self._sequenced(outcome).index
            assert index is not None, "what is neither pending nor refused has its place"
            return index
        raise NetworkError(f"other imports came first {TRIES} times", hint="run it again")

    def _follow(self) -> None:
        """Watch the import that is open, if one is, until its last line is public. NetworkError: it stands still."""
        opened = self._look()
        if opened is None:
            return
        first, began = opened["left"], self._monotonic()
        seen, moved, told = (opened["left"], -1), began, began
        while True:
            size = self._size()
            now, left = self._monotonic(), opened["left"]
            if left == 0 and size >= self._end:
                return
            if (left, size) != seen:
                seen, moved = (left, size), now
            if now - moved > self._wait:
                raise NetworkError(
                    f"import #{opened['index']} stands still at line {opened['line']}, {left} are left",
                    hint="is `work log` running, with its witnesses? it goes on by itself; run this again to watch",
                )
            if now - told >= TELL:
                told = now
                self._say(_progress(opened, first - left, now - began))
            self._sleep(LOOK)
            opened = self._look() or opened

    def _look(self) -> Any:
        with db.read(self._engine) as connection:
            log = SqlView(connection, db.rules_state).get(rules.LOG)
        if log is None or not log["size"]:
            raise UsageError(
                "the log has not begun yet", hint="`countermark-server adopt` and `work log` begin it"
            )
        self._end = int(log["size"])
        return log.get("import")

    def _size(self) -> int:
        try:
            return self._published.checkpoint().size
        except (ServerError, CountermarkError):
            return -1

    def _count(self, part: Sequence[Line], index: int, summary: Summary) -> None:
        """What became of every line of an import that is complete."""
        passed = Counter(summary.passed)
        with db.read(self._engine) as connection:
            for chunk in _chunks(part):
                view = _view(connection, chunk)
                for line in chunk:
                    file = view.get(manifest.file_key(line))
                    if file is not None and file.get("import") == index:
                        summary.recorded += 1
                    else:
                        passed["file-exists" if file is not None else "project-signs-or-is-frozen"] += 1
        summary.passed = dict(sorted(passed.items()))


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(itertools.islice(rest, AT_ONCE)):
        yield chunk


def _view(connection: Connection, lines: Sequence[Line]) -> SqlView:
    view = SqlView(connection, db.rules_state)
    view.fetch(
        {key for line in lines for key in (manifest.file_key(line), rules.project_key("", line.project))}
    )
    return view


def _opened(connection: Connection) -> Any:
    log = SqlView(connection, db.rules_state).get(rules.LOG)
    return None if log is None else log.get("import")


def _progress(opened: Any, done: int, seconds: float) -> str:
    """How far it is, and how long it will take at this pace."""
    total = opened["line"] - 1 + opened["left"]
    text = f"import #{opened['index']}: line {opened['line'] - 1} of {total}"
    if done and seconds:
        text += f", {done / seconds:.0f} a second, {opened['left'] * seconds / done:.0f} s to go"
    return text


def read_file(path: Path) -> Read:
    """A MANIFEST on disk. UsageError: it can't be read, or holds nothing."""
    try:
        with path.open("rb") as stream:
            read = read_list(iter(lambda: stream.readline(manifest.LINE_MAX_BYTES + 2), b""))
    except OSError as error:
        raise UsageError(f'cannot read "{path}": {error.strerror}') from None
    if not read.lines and not read.unfit:
        raise UsageError(f'"{path}" names no file', hint="a line is: project version filename sha256 length")
    return read
