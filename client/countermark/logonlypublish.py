"""Publishing in a namespace: signed statements about files that somebody else serves go into the log; no bytes do.

    countermark key enrol 'corp/*'                           once: the first key opens the namespace
    countermark publish --namespace corp served/*            and `--ci` in a job that the namespace trusts

What is reported as done comes from a checked proof that this very statement is an entry. Such an entry is in the log
only: nobody here has seen the bytes, no scanner looked, TUF never lists it.
"""

from __future__ import annotations

import json

from countermark.distribution import Distribution
from countermark.entry import Entry
from countermark.errors import EvidenceError, NetworkError
from countermark.fetch import Fetcher
from countermark.logreader import LogReader
from countermark.publish import ENROL_TIMEOUT, JSON, check_answer, check_proof, document_of
from countermark.session import Session
from countermark.statement import Envelope
from countermark.trust import View


def log(
    view: View, fetcher: Fetcher, session: Session, file: Distribution, envelope: Envelope, *, now: int
) -> int:
    """Hand in one file's publish statement; the index of its entry. The upload token suffices.

    EvidenceError: the answer proves another entry. NetworkError: taken, and not public yet.
    """
    answer = fetcher.post(
        f"{view.registry.url}/api/v1/entries",
        json.dumps({"envelope": envelope.to_dict()}).encode(),
        content_type=JSON,
        headers={"Authorization": f"Bearer {session.upload_token}"},
        timeout=ENROL_TIMEOUT,
        idempotent=True,  # the same statement again is answered like the first time
    )
    check_answer(answer, f"logging {file.filename}")
    document = document_of(answer)
    index, proof = document.get("index"), document.get("proof")
    if type(index) is not int or proof is None:
        raise NetworkError(
            f"{file.filename}: taken, and not public in the log yet", hint="run this once more"
        )
    checkpoint = check_proof(view, str(proof).encode(), index, str(document.get("leaf_hash")), now=now)
    entry = Entry.parse(LogReader(view.registry.log_url, checkpoint, fetcher).entry(index))
    if entry.statement is None or entry.statement.payload() != envelope.payload:
        raise EvidenceError(f"the proof offered for {file.filename} is of another entry, #{index}")
    return index
