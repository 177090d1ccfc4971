"""Witnesses, as the log asks them: "have you seen anything that contradicts this checkpoint?"

    POST <witness>/add-checkpoint
    old 3
    <consistency proof from 3 to 5, one hash a line>

    <the checkpoint, with the log's own signature lines and no others>

Real witnesses deviate from the text of tlog-witness, so this client is tolerant about *how* they refuse and
strict about what counts as a yes: 200 with a line by the key that the policy names, that verifies and states
a time, and none that is ahead of our clock. Everything else is one of three:

    WitnessError      not now, or not us: unreachable, overloaded, unknown log. Try again later
    WitnessAhead      it has cosigned a larger tree than our newest. We lost history: stop
    WitnessDisagrees  it has cosigned another tree than ours. Somebody forked the log: stop

A 409 that says a size is how we learn where the witness stands; one that says nothing readable is "ask again
with old 0, then back off", and never a yes. Only the log's own lines are sent: some witnesses stop at 16 KiB,
which five collected ML-DSA cosignatures exceed.

Format: https://c2sp.org/tlog-witness (v1.0.0)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from countermark.errors import CountermarkError, MalformedError, NetworkError, SignatureError, UsageError
from countermark.fetch import Answer, Fetcher
from countermark.limits import COSIGNATURE_MAX_SKEW, WITNESS_BODY_MAX_BYTES
from countermark.tlog.checkpoint import LogCheckpoint
from countermark.tlog.cosignature import check_signature
from countermark.tlog.merkle import HashReader, prove_consistency
from countermark.tlog.note import Signature, VerifierKey, format_base64, parse_decimal
from countermark.tlog.policy import NONE, Policy
from countermark_server import telemetry
from countermark_server.contradiction import ContradictionError
from countermark_server.settings import is_test_origin

TRIES = 4  # asking where it stands, and three honest attempts
BACK_OFF = (0.01, 0.05, 0.25)  # seconds between attempts

Said = tuple[str, Signature | None, str]  # a witness's name, its line or None, and what went wrong


class WitnessError(Exception):
    """This witness gave no cosignature this time."""


class WitnessAheadError(ContradictionError):
    """A witness has cosigned more than our newest checkpoint: history was lost on our side."""


class WitnessDisagreesError(ContradictionError):
    """A witness has cosigned a tree that is not ours: the log was forked."""


class Witness:
    """One witness of the policy, and the size it is believed to stand at."""

    def __init__(
        self,
        name: str,
        key: VerifierKey,
        url: str,
        fetcher: Fetcher,
        *,
        timeout: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._key = key
        self._url = url.rstrip("/") + "/add-checkpoint"
        self._fetcher = fetcher
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._old = 0
        self._turn = threading.Lock()  # a slow answer and the next question must not overlap

    def cosign(self, checkpoint: LogCheckpoint, read: HashReader) -> Signature:
        """This witness's line under the checkpoint; `read` reads the hashes of its tree."""
        if not self._turn.acquire(timeout=self._timeout):
            raise WitnessError(f"{self.name} is still busy with an earlier checkpoint")
        outcome = (
            "failed"  # also when our own tree can't be read: the store's error passes, the witness waits
        )
        try:
            line, outcome = self._ask(checkpoint, read), "cosigned"
        except (WitnessAheadError, WitnessDisagreesError):
            outcome = "contradicted"
            raise
        finally:
            self._turn.release()
            telemetry.WITNESS_REQUESTS.labels(self.name, outcome).inc()
        return line

    def _ask(self, checkpoint: LogCheckpoint, read: HashReader) -> Signature:
        problem = ""
        for attempt in range(TRIES):
            if attempt and problem:
                self._sleep(BACK_OFF[min(attempt, len(BACK_OFF)) - 1])
            try:
                answer = self._post(checkpoint, read)
            except NetworkError as error:
                problem = str(error)
                continue
            if answer.status == 200:
                line = self._line(checkpoint, answer.body)
                self._old = checkpoint.size
                return line
            problem = self._refused(checkpoint, answer)
        raise WitnessError(f"{self.name}: {problem or 'no agreement about its size'}")

    def _post(self, checkpoint: LogCheckpoint, read: HashReader) -> Answer:
        if self._old > checkpoint.size:
            raise WitnessAheadError(
                f"{self.name} has cosigned size {self._old}, our log went back to {checkpoint.size}"
            )
        proof = prove_consistency(self._old, checkpoint.size, read)
        lines = [f"old {self._old}", *map(format_base64, proof), "", ""]
        body = "\n".join(lines).encode() + checkpoint.log_note()
        return self._fetcher.post(
            self._url,
            body,
            content_type="text/plain; charset=utf-8",
            max_bytes=WITNESS_BODY_MAX_BYTES,
            timeout=self._timeout,
        )

    def _refused(self, checkpoint: LogCheckpoint, answer: Answer) -> str:
        """What to think of an answer that is not 200: learn from a 409, stop at a contradiction."""
        said = answer.body[:200].decode("utf-8", "replace").strip()
        if answer.status == 409:
            return self._conflict(checkpoint, said)
        if answer.status == 422:
            # Our proof leads from a tree of ours: if it does not verify there, its tree is not ours.
            raise WitnessDisagreesError(f"{self.name} refuses size {checkpoint.size} as inconsistent: {said}")
        if answer.status == 429 or answer.status >= 500:
            return f"answered {answer.status} {said}".strip()
        raise WitnessError(f"{self.name} does not take our checkpoints: {answer.status} {said}".strip())

    def _conflict(self, checkpoint: LogCheckpoint, said: str) -> str:
        """A 409 names the size the witness stands at; returns a problem when it names nothing new."""
        try:
            size = parse_decimal(said)
        except MalformedError:
            if self._old == checkpoint.size:
                # Some answer so when they hold another root of this very size.
                raise WitnessDisagreesError(
                    f"{self.name} stands at size {checkpoint.size} and does not accept our root of it"
                ) from None
            self._old = 0
            return "answered 409 without a size"
        if size > checkpoint.size:
            raise WitnessAheadError(f"{self.name} has cosigned size {size}, our log is at {checkpoint.size}")
        changed, self._old = size != self._old, size
        return "" if changed else f"answered 409 {size} to old {size}"

    def _line(self, checkpoint: LogCheckpoint, body: bytes) -> Signature:
        """The line by this witness's key among those it sent, verified; other lines say nothing to us."""
        for text in body.decode("utf-8", "replace").split("\n"):
            try:
                line = Signature.parse(text)
            except MalformedError:
                continue
            if (line.name, line.key_id) != (self._key.name, self._key.key_id):
                continue
            try:
                stated = check_signature(self._key, checkpoint.text(), line.sig)
            except SignatureError as error:
                raise WitnessError(f"{self.name} sent a false cosignature: {error}") from None
            if not stated:
                continue
            now = int(self._clock())
            if stated - now > COSIGNATURE_MAX_SKEW.total_seconds():
                # It would spoil the whole checkpoint, for which others may make the quorum.
                raise WitnessError(f"{self.name} signed at {stated}, which is ahead of our clock, {now}")
            return line
        raise WitnessError(f"{self.name} answered 200 without a cosignature by its key")


class Quorum:
    """All witnesses of a policy, asked together."""

    def __init__(self, policy: Policy, witnesses: Sequence[Witness]) -> None:
        self._policy = policy
        self._witnesses = witnesses
        self._pool = ThreadPoolExecutor(max(1, len(witnesses)), thread_name_prefix="witness")
        self._newest: dict[str, Future[Said]] = {}  # the last question to each; one at a time, in their order

    def cosign(
        self, checkpoint: LogCheckpoint, read: HashReader, *, everybody: bool = False
    ) -> tuple[list[Signature], list[str]]:
        """Lines collected until the quorum is there, and what went wrong meanwhile; `everybody`: until all answered.

        WitnessAheadError and WitnessDisagreesError pass through: one contradiction outweighs any quorum. One that
        comes after the quorum was there ends the next call.
        """
        if len(self._witnesses) == 1:
            return self._of([self._asked(self._witnesses[0], checkpoint, read)])
        asked: list[Future[Said]] = []
        answers: list[Said] = []
        for witness in self._witnesses:
            earlier = self._newest.get(witness.name)
            if earlier is not None and not earlier.done():
                answers.append(
                    (witness.name, None, f"{witness.name} is still busy with an earlier checkpoint")
                )
                continue
            if earlier is not None:
                earlier.result()  # raises what it found too late for its own call
            self._newest[witness.name] = self._pool.submit(self._asked, witness, checkpoint, read)
            asked.append(self._newest[witness.name])
        for future in as_completed(asked):
            answers.append(future.result())
            times = {name: 1 for name, line, _ in answers if line}
            if not everybody and self._policy.quorum_time(times) is not None:
                break
        return self._of(answers)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _of(answers: list[Said]) -> tuple[list[Signature], list[str]]:
        lines = [line for _, line, _ in answers if line is not None]
        return lines, [problem for _, _, problem in answers if problem]

    @staticmethod
    def _asked(witness: Witness, checkpoint: LogCheckpoint, read: HashReader) -> Said:
        try:
            return witness.name, witness.cosign(checkpoint, read), ""
        except WitnessError as error:
            return witness.name, None, str(error)
        except CountermarkError as error:
            return witness.name, None, f"{witness.name}: {error}"


def witness_urls(policy: Policy, given: str) -> Mapping[str, str]:
    """Where each witness of the policy is: what the settings say, else what the policy says."""
    urls = {witness.name: witness.url for witness in policy.witnesses}
    for pair in given.split():
        name, equals, url = pair.partition("=")
        if not equals or name not in urls:
            raise UsageError(f"log.witness_urls: {pair!r} is not NAME=URL of a witness of the policy")
        urls[name] = url
    if missing := sorted(name for name, url in urls.items() if not url):
        raise UsageError(f"no URL is known for witness {missing[0]}", hint="set log.witness_urls")
    return {name: url for name, url in urls.items() if url}


def check_quorum_allowed(policy: Policy, origin: str) -> None:
    """`quorum none` is for names that can't be anybody's: the log fails closed everywhere else."""
    if policy.quorum == NONE and not is_test_origin(origin):
        raise UsageError(
            f"the witness policy of {origin} asks for no witness",
            hint="`quorum none` is for origins ending in .test, .example or .invalid",
        )
