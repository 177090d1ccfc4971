"""Client certificates: what this machine shows to a registry that is read with one, and whether it can be shown.

    COUNTERMARK_CLIENT_CERTS="https://registry.example=/etc/ssl/me.pem,/etc/ssl/me.key"      (credentials.py)
    countermark trust add https://registry.example --client-cert me.pem --client-key me.key   (kept, for good)

What `trust add` is told stands in `certificates.json` in this user's home, by scheme, host and port; the environment
wins. A file may hold both, key and certificate, as pip and uv want it.

    {"https://registry.example:443":["/etc/ssl/me.pem","/etc/ssl/me.key"]}

`check` looks before TLS does, and says what is wrong with the command that mends it: a file that is not there or not
ours to read, a key that others may read, one with a passphrase (nobody is asked for it: OpenSSL would stop a job to
do that), a key of another certificate. Whether a certificate has expired or was revoked is the registry's to judge,
by its clock; what it says of that is passed on (`hint`).
"""

from __future__ import annotations

import json
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from countermark.errors import UsageError
from countermark.limits import LOCAL_FILE_MAX_BYTES

Certificate = tuple[str, str]  # the files of certificate and key, often one
FILE = "certificates.json"
NEEDED = "certificate-needed"  # the registry's code for who shows none, or none that is good


def check(certificate: Certificate, url: str) -> None:
    """UsageError: these files can't be shown to this registry."""
    where = _where(url)
    again = f"countermark trust add {where} --client-cert FILE --client-key FILE, or COUNTERMARK_CLIENT_CERTS"
    for path, what in dict(
        zip(reversed(certificate), ("the key of", "the client certificate for"), strict=True)
    ).items():
        try:
            with Path(path).open("rb") as stream:
                raw = stream.read(LOCAL_FILE_MAX_BYTES)
        except FileNotFoundError:
            raise UsageError(f'there is no file "{path}", {what} {where}', hint=again) from None
        except OSError as error:
            raise UsageError(
                f'cannot read "{path}", {what} {where}: {error.strerror}',
                hint=f"chmod u+r {shlex.quote(path)}, as who owns it; or {again}",
            ) from None
        if b"PRIVATE KEY" in raw:
            _check_key(path, raw)
    _load(certificate, where)


def _check_key(path: str, raw: bytes) -> None:
    if sys.platform != "win32" and Path(path).stat().st_mode & stat.S_IRWXO:
        raise UsageError(
            f'"{path}" holds a private key, and everybody on this machine may read it',
            hint=f"chmod o= {shlex.quote(path)}; if somebody may have, have the certificate revoked",
        )
    if b"ENCRYPTED" in raw:
        raise UsageError(
            f'the key in "{path}" has a passphrase, which nobody is asked for',
            hint=f"openssl pkey -in {shlex.quote(path)} -out NEW.key, on a disk that only you read",
        )


def _load(certificate: Certificate, where: str) -> None:
    import ssl  # noqa: PLC0415  (lazy: who shows no certificate loads it when it connects)

    named = (
        f'"{certificate[0]}"' if certificate[0] == certificate[1] else '"{}" and "{}"'.format(*certificate)
    )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*certificate, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise UsageError(
                f'the key in "{certificate[1]}" is not that of the certificate in "{certificate[0]}"',
                hint="openssl x509 -in CERTIFICATE -noout -pubkey, and openssl pkey -in KEY -pubout, must agree",
            ) from None
        raise UsageError(
            f"{named} do not hold a certificate and its key, for {where}"
            if certificate[0] != certificate[1]
            else f"{named} does not hold a certificate and its key, for {where}",
            hint="both in PEM: -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----",
        ) from None


def hint(url: str, status: int, body: bytes) -> str | None:
    """What to do about an answer that says that we may not read; None for every other one."""
    where = _where(url)
    if status == 401:
        return f"countermark login {where}, or COUNTERMARK_READ_TOKENS={where}=TOKEN"
    if status == 403 and f'"{NEEDED}"'.encode() in body[:LOCAL_FILE_MAX_BYTES]:
        return (
            f"countermark trust add {where} --client-cert FILE --client-key FILE, with a good certificate: the "
            "registry's operator issues them"
        )
    return None


def kept(home: Path) -> dict[str, Certificate]:
    """What `trust add` was told, by URL. UsageError: the file holds something else."""
    try:
        with (home / FILE).open("rb") as stream:
            raw = stream.read(LOCAL_FILE_MAX_BYTES)
    except OSError:  # none was kept, or not for this user: what needs one says so
        return {}
    try:
        return {str(url): (str(each[0]), str(each[1])) for url, each in json.loads(raw).items()}
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, RecursionError):
        raise UsageError(
            f'"{home / FILE}" does not hold what `countermark trust add --client-cert` writes',
            hint="delete it",
        ) from None


def kept_with(held: Mapping[str, Certificate], url: str, certificate: Certificate | None) -> bytes:
    """`certificates.json` as it is to be written, with this for a registry; None: with none."""
    rest = {name: each for name, each in held.items() if name != url}
    return json.dumps(rest if certificate is None else {**rest, url: certificate}, sort_keys=True).encode()


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
