"""evidence.py: what is written, once, and how it reads."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from countermark.evidence import Evidence, EvidenceClass, save


def test_evidence_keeps_bytes_and_is_written_once(tmp_path: Path) -> None:
    """The objects are the exact bytes; the same contradiction at another time is the same file."""
    evidence = Evidence(EvidenceClass.SELF_PROVING, ["a fork"], {"b": b"\xff", "a": b""}, "https://x.test")
    path = save(evidence, tmp_path / "evidence", time=1)
    assert save(evidence, tmp_path / "evidence", time=2) == path
    document = json.loads(path.read_text())
    assert document["time"] == 1 and document["class"] == "self-proving"
    assert {name: base64.b64decode(text) for name, text in document["objects"].items()} == evidence.objects
    other = Evidence(EvidenceClass.OBSERVATION, ["a fork"], {"b": b"\xfe"})
    assert save(other, tmp_path / "evidence", time=1) != path
    assert len(list((tmp_path / "evidence").iterdir())) == 2
