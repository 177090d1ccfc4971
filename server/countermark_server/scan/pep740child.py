"""The sandboxed child that verifies one PEP 740 object. `python -I -m countermark_server.scan.pep740child 7 60 ROOT`

    0, the task     {"filename": "demo-1.0.tar.gz", "sha256": "5891...", "cpu_seconds": 20, "memory_bytes": 536870912}
    1, the answer   {"verified": true, "predicate_type": "https://slsa.dev/provenance/v1",
                     "identity": {"issuer": "https://token.actions.githubusercontent.com", "repository": "acme/demo",
                                  "repository_id": "7", "workflow": "release.yml", "ref": "refs/tags/v1.0"}}
                    {"verified": false, "reason": "invalid log entry: ..."}
    3               the object, as it was uploaded

This is the only module that imports sigstore, which the extra `[sigstore]` brings, once for a nursery
(nursery.py). Its argument behind the two of a nursery is the trusted root to start from; "" stands for the one
that the library brings. Nothing is fetched: certificate chain and its proof of issuance, the signature, the log's
inclusion proof and its signed checkpoint are all in the object, and are held against the root's keys. The time that
certificates are judged at is the log's, not ours.

As in child.py everything is imported and read before the first byte of the object; then every door is shut.
"""

from __future__ import annotations

import codecs
import json
import logging
import os
import sys
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from countermark_server import fulcio
from countermark_server.scan import nursery
from countermark_server.scan.confine import confine

if TYPE_CHECKING:
    from sigstore.verify import Verifier

ARTIFACT = 3  # the descriptor
ORPHANED = 2
REASON_MAX_CHARS = 300
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_SAID = {"issuer": "8", "repository": "12", "ref": "14", "repository_id": "15", "workflow": "18"}
_STORE = "https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"


class FalseError(Exception):
    """The object does not prove what it says; the message is for its publisher."""


class Checker:
    """Verifies objects against one trusted root. OSError, ValueError: the root cannot be read."""

    def __init__(self, root: str) -> None:
        from sigstore.models import TrustedRoot  # noqa: PLC0415  (an extra: here and nowhere else)
        from sigstore.verify import Verifier  # noqa: PLC0415

        bundled = files("sigstore").joinpath("_store", _STORE, "trusted_root.json")
        self._verifier: Verifier = Verifier(trusted_root=TrustedRoot.from_file(root or str(bundled)))

    def check(self, item: Any, filename: str, sha256: str) -> dict[str, Any]:
        """What holds of the object, as its answer. FalseError: it does not hold."""
        from sigstore.errors import Error  # noqa: PLC0415
        from sigstore.models import Bundle  # noqa: PLC0415
        from sigstore.verify.policy import UnsafeNoOp  # noqa: PLC0415

        try:
            # (1) Certificate, log entry and signature hold together, and lead to the trusted root.
            bundle = Bundle.from_json(json.dumps(_bundle(item)))
            kind, payload = self._verifier.verify_dsse(bundle, UnsafeNoOp())
            certificate = bundle.signing_certificate
        except Error as error:
            raise FalseError(str(error)) from error
        except (OSError, ImportError, MemoryError):
            raise  # says something of this process, not of the object
        except Exception as error:  # a library that chokes on hostile input has not verified it
            raise FalseError(f"not understood: {type(error).__name__}: {error}") from error
        # (2) What was signed is about this file.
        predicate_type = _about(kind, payload, filename, sha256)
        # (3) Who signed. Whether the project trusts them is the worker's question (attestations.py).
        return {"verified": True, "predicate_type": predicate_type, "identity": identity(certificate)}


def _bundle(item: Any) -> dict[str, Any]:
    """PEP 740's object in the form that the library reads."""
    material, envelope = item["verification_material"], item["envelope"]
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "certificate": {"rawBytes": material["certificate"]},
            "tlogEntries": material["transparency_entries"],
        },
        "dsseEnvelope": {
            "payload": envelope["statement"],
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": envelope["signature"]}],
        },
    }


def _about(kind: str, payload: bytes, filename: str, sha256: str) -> str:
    """The predicate type of a statement about this file."""
    try:
        statement = json.loads(payload)
        (subject,) = statement["subject"]
        said = (kind, statement["_type"], subject["name"], subject["digest"]["sha256"])
        predicate_type = statement["predicateType"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FalseError("what was signed is no in-toto statement about one file") from error
    if said != (PAYLOAD_TYPE, STATEMENT_TYPE, filename, sha256) or type(predicate_type) is not str:
        raise FalseError(f"what was signed is about {said[2:]}, not {(filename, sha256)}")
    return predicate_type


def identity(certificate: x509.Certificate) -> dict[str, str]:
    """Whom the certificate names, in the words of a trusted publisher; a person, with an address: by no word."""
    texts = fulcio.texts(certificate.extensions)
    said = {name: texts.get(part, "") for name, part in _SAID.items()}
    if said["repository"].startswith("https://"):
        said["repository"] = said["repository"].split("/", 3)[-1]
    path = said["workflow"].partition("@")[0]
    said["workflow"] = path.rpartition("//")[2] if "//" in path[8:] else path.rpartition("/")[2]
    return {name: value for name, value in said.items() if value}


def warm(root: str) -> Checker:
    """Everything that can be imported, read and set up beforehand, each kind of signature among it."""
    logging.disable()  # the library warns of what we do by design: the identity is judged by the worker
    checker = Checker(root)
    for curve, digest in ((ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())):
        key = ec.generate_private_key(curve)
        key.public_key().verify(key.sign(b"", ec.ECDSA(digest)), b"", ec.ECDSA(digest))
    ed = ed25519.Ed25519PrivateKey.generate()
    ed.public_key().verify(ed.sign(b""), b"")
    nothing = {"certificate": "", "transparency_entries": []}
    codecs.lookup("utf-16be")  # the codec that reads names in certificates
    with suppress(FalseError):
        checker.check(
            {"verification_material": nothing, "envelope": {"statement": "", "signature": ""}}, "", ""
        )
    return checker


def main(checker: Checker) -> int:
    """Confine this process, verify the object, print what was found."""
    parent = os.getppid()
    task = json.load(sys.stdin)
    with os.fdopen(ARTIFACT, "rb") as file:
        confine(cpu_seconds=task["cpu_seconds"], memory_bytes=task["memory_bytes"])
        if os.getppid() != parent:
            return ORPHANED
        try:
            answer = checker.check(json.loads(file.read()), task["filename"], task["sha256"])
        except (FalseError, ValueError, RecursionError) as error:
            answer = {"verified": False, "reason": " ".join(str(error).split())[:REASON_MAX_CHARS]}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    made = warm(sys.argv[3])
    raise SystemExit(nursery.main(sys.argv[1:3], examine=lambda: main(made), warm=lambda: None))
