"""What Sigstore's certificate authority says of a job, in extensions of its certificates.

https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md: each is an arc below 1.3.6.1.4.1.57264.1, its value a
UTF8String in DER. The parts that are read here: 8 issuer, 12 repository, 14 ref, 15 repository's id, 18 workflow.
"""

from __future__ import annotations

from cryptography import x509

_ARC = "1.3.6.1.4.1.57264.1."


def texts(extensions: x509.Extensions) -> dict[str, str]:
    """The texts by their part; what is no text is empty."""
    return {
        each.oid.dotted_string.removeprefix(_ARC): text(each.value.value)
        for each in extensions
        if isinstance(each.value, x509.UnrecognizedExtension) and each.oid.dotted_string.startswith(_ARC)
    }


def text(der: bytes) -> str:
    """A UTF8String: tag, length (one byte below 128, else as many bytes as it says), text. Empty: none of those."""
    if len(der) < 2 or der[0] != 0x0C:
        return ""
    start = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7F)
    return der[start:].decode("utf-8", "replace")
