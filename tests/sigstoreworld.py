"""A Sigstore of our own: a certificate authority, a log of certificates and a transparency log, all keys made here.

    sigstore = SigstoreWorld()
    sigstore.trusted_root()                                   what an operator would configure
    sigstore.attest("demo-1.0.tar.gz", data)                  a PEP 740 object that verifies against it
    sigstore.attest(..., entry=lambda e: e.pop("inclusionProof"))      and one that does not

The transparency log has two entries and signs its checkpoint and its promise; all as Fulcio and Rekor do it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FULCIO = "1.3.6.1.4.1.57264.1."
SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
T = 1_790_000_000  # when everything is signed
PUBLISH = "https://slsa.dev/provenance/v1"
GITHUB = {
    "issuer": "https://token.actions.githubusercontent.com",
    "repository": "acme/demo",
    "repository_id": "4711",
    "workflow": "release.yml",
    "ref": "refs/tags/v1.0",
}
Change = Callable[[dict[str, Any]], object]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


def when(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


class SigstoreWorld:
    """The three parties of a Sigstore, and what they sign."""

    def __init__(self) -> None:
        self.authority, self.certificate_log, self.log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fulcio.test")])
        made = _builder(name, name, spki(self.authority), T - 86400, 10 * 365 * 86400)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(_usage(authority=True), critical=True)
        made = made.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()), False
        )
        self.root = made.sign(self.authority, SHA256())

    def trusted_root(self) -> bytes:
        """The file that `scan.sigstore_root` names."""
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [_instance("https://rekor.test", self.log)],
                "ctlogs": [_instance("https://ctfe.test", self.certificate_log)],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "test", "commonName": "fulcio.test"},
                        "uri": "https://fulcio.test",
                        "certChain": {
                            "certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]
                        },
                        "validFor": {"start": "2020-01-01T00:00:00Z"},
                    }
                ],
                "timestampAuthorities": [],
            }
        ).encode()

    def certificate(
        self, key: ec.EllipticCurvePrivateKey, identity: dict[str, str], *, begins: int = T - 60
    ) -> x509.Certificate:
        """A certificate of ten minutes for a job, with the certificate log's receipt inside."""
        said = identity["repository"]
        workflow = f"https://github.com/{said}/.github/workflows/{identity['workflow']}@{identity['ref']}"
        issued = _builder(x509.Name([]), self.root.subject, spki(key), begins, 600)
        issued = issued.add_extension(_usage(authority=False), critical=True)
        issued = issued.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
        issued = issued.add_extension(issuer_key, False)
        issued = issued.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(workflow)])
        issued = issued.add_extension(san, critical=True)
        words = {"8": identity["issuer"], "12": f"https://github.com/{said}", "14": identity["ref"]}
        words |= {"15": identity["repository_id"], "18": workflow}
        for part, text in words.items():
            raw = text.encode()
            head = b"\x0c" + (bytes([len(raw)]) if len(raw) < 128 else bytes([0x81, len(raw)]))
            oid = x509.ObjectIdentifier(FULCIO + part)
            issued = issued.add_extension(x509.UnrecognizedExtension(oid, head + raw), False)
        tbs = issued.sign(self.authority, SHA256()).tbs_certificate_bytes
        issuer = hashlib.sha256(spki(self.authority)).digest()
        head = struct.pack("!BBQH", 0, 0, begins * 1000, 1)
        entry = head + issuer + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = signed(self.certificate_log, entry)
        sct = (
            b"\0" + hashlib.sha256(spki(self.certificate_log)).digest() + struct.pack("!QH", begins * 1000, 0)
        )
        sct += b"\4\3" + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        oid = x509.ObjectIdentifier(SCT_LIST)
        value = b"\x04" + (bytes([len(listed)]) if len(listed) < 128 else bytes([0x81, len(listed)])) + listed
        issued = issued.add_extension(x509.UnrecognizedExtension(oid, value), False)
        return issued.sign(self.authority, SHA256())

    def attest(
        self,
        filename: str,
        data: bytes,
        *,
        identity: dict[str, str] | None = None,
        begins: int = T - 60,
        predicate_type: str = PUBLISH,
        entry: Change | None = None,
        item: Change | None = None,
    ) -> dict[str, Any]:
        """A PEP 740 object about these bytes; `entry` and `item` change log entry and object after all is signed."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certificate(key, identity or GITHUB, begins=begins)
        statement = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"name": filename, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}],
                "predicateType": predicate_type,
                "predicate": None,
            }
        ).encode()
        kind = b"application/vnd.in-toto+json"
        signature = signed(key, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement))
        logged = self._entry(statement, signature, certificate)
        if entry is not None:
            entry(logged)
        made = {
            "version": 1,
            "verification_material": {
                "certificate": b64(certificate.public_bytes(Encoding.DER)),
                "transparency_entries": [logged],
            },
            "envelope": {"statement": b64(statement), "signature": b64(signature)},
        }
        if item is not None:
            item(made)
        return made

    def _entry(self, statement: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        """Entry 1 of a log of two, with promise, proof and signed checkpoint."""
        verifier = b64(certificate.public_bytes(Encoding.PEM))
        digest = {"algorithm": "sha256", "value": hashlib.sha256(statement).hexdigest()}
        spec = {
            "envelopeHash": digest, "payloadHash": digest,
            "signatures": [{"signature": b64(signature), "verifier": verifier}],
        }  # fmt: skip
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}, sort_keys=True).encode()
        first = hashlib.sha256(b"\0something else").digest()
        root = hashlib.sha256(b"\1" + first + hashlib.sha256(b"\0" + body).digest()).digest()
        keyid = hashlib.sha256(spki(self.log)).digest()
        note = f"rekor.test - 1\n2\n{b64(root)}\n"
        line = b64(keyid[:4] + signed(self.log, note.encode()))
        promise = {"body": b64(body), "integratedTime": T, "logID": keyid.hex(), "logIndex": 1}
        promised = json.dumps(promise, sort_keys=True, separators=(",", ":")).encode()
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(keyid)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(T),
            "inclusionPromise": {"signedEntryTimestamp": b64(signed(self.log, promised))},
            "inclusionProof": {
                "logIndex": "1", "treeSize": "2", "rootHash": b64(root), "hashes": [b64(first)],
                "checkpoint": {"envelope": f"{note}\n— rekor.test {line}\n"},
            },
            "canonicalizedBody": b64(body),
        }  # fmt: skip


def _instance(url: str, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    valid = {"start": "2020-01-01T00:00:00Z"}
    public = {"rawBytes": b64(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
    keyid = {"keyId": b64(hashlib.sha256(spki(key)).digest())}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": keyid}


def _builder(
    subject: x509.Name, issuer: x509.Name, public: bytes, begins: int, seconds: int
) -> x509.CertificateBuilder:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key = load_der_public_key(public)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(7_000_001).not_valid_before(when(begins))
    return made.not_valid_after(when(begins + seconds))


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
