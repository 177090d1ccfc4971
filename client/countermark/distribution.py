"""A distribution on disk: what its publish statement must say, read from the file itself.

    acme-1.0-py3-none-any.whl   ->   project acme, version 1.0, sha256, length,
                                     metadata_sha256 of acme-1.0.dist-info/METADATA,
                                     record_sha256 of acme-1.0.dist-info/RECORD (wheels only)

A publisher reads their own file here, so this finds the members and hashes them; whether the archive is
safe to unpack is the registry's question. The signature travels beside the file as
`<file>.publish.attestation`, which twine and uv upload without knowing what it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from countermark.disk import read_file, replace_file
from countermark.errors import CountermarkError, MalformedError, UsageError
from countermark.limits import ENTRY_MAX_BYTES
from countermark.names import FileName, parse_filename
from countermark.statement import Envelope, Signer, Statement, check_signatures, sign
from countermark.values import dataclass

ATTESTATION_SUFFIX = ".publish.attestation"
MEMBER_MAX_BYTES = 8 * 1024 * 1024  # METADATA and RECORD; what the registry takes, too


@dataclass(frozen=True)
class Distribution:
    """One wheel or source distribution."""

    path: Path
    name: FileName
    data: bytes
    metadata: bytes
    record: bytes | None
    namespace: str = ""  # of the log; files of other ones than the default are served elsewhere

    @property
    def project(self) -> str:
        """As commands name it: acme, corp/widget."""
        return f"{self.namespace}/{self.name.project}" if self.namespace else self.name.project

    @property
    def filename(self) -> str:
        return self.path.name

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def attestation_path(self) -> Path:
        return self.path.with_name(self.filename + ATTESTATION_SUFFIX)

    def statement(self, origin: str) -> Statement:
        """The publish statement of this file for the log of this origin."""
        predicate = {
            "length": len(self.data),
            "metadata_sha256": hashlib.sha256(self.metadata).hexdigest(),
            "namespace": self.namespace,
            "origin": origin,
            "prev": None,
            "project": self.name.project,
            "record_sha256": None if self.record is None else hashlib.sha256(self.record).hexdigest(),
            "version": self.name.version,
        }
        return Statement(self.filename, self.sha256, "publish", predicate)

    def attest(self, origin: str, signer: Signer) -> Envelope:
        """The signed statement, from the file beside it when that already is this statement by this key."""
        statement = self.statement(origin)
        kept = read_file(self.attestation_path, max_bytes=ENTRY_MAX_BYTES)
        if kept is not None:
            try:
                envelope = Envelope.parse(kept)
                check_signatures(envelope, {signer.keyid: signer.public_key})
                if envelope.payload == statement.payload():
                    return envelope
            except CountermarkError:
                pass  # a signature of other bytes or by another key: it is replaced
        envelope = sign(statement, signer)
        replace_file(self.attestation_path, envelope.to_json(), mode=0o644)
        return envelope


def distributions(paths: Iterable[Path]) -> list[Path]:
    """The distributions among these paths; signatures lying beside them are passed over."""
    found = [path for path in paths if not path.name.endswith((".attestation", ".asc"))]
    if not found:
        raise UsageError("no distribution given", hint="for example dist/*")
    return found


def read_distribution(path: Path) -> Distribution:
    """Read a distribution; UsageError when it is none."""
    try:
        if not path.exists():  # before its name is judged: `dist/*` that matched nothing arrives like this
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        name = parse_filename(path.name)
        data = path.read_bytes()
        metadata, record = _wheel(path) if name.is_wheel else (_sdist(path), None)
    except MalformedError as error:
        raise UsageError(f'"{path}": {error}') from None
    except OSError as error:
        raise UsageError(f'cannot read "{path}": {error.strerror or error}') from None
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UsageError(f'"{path}" is not a readable archive: {error}') from None
    return Distribution(path, name, data, metadata, record)


def _wheel(path: Path) -> tuple[bytes, bytes]:
    with zipfile.ZipFile(path) as archive:
        folders = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        if len(folders) != 1:
            raise UsageError(f'"{path}" has {len(folders)} .dist-info folders, a wheel has one')
        folder = folders.pop()
        return _member(archive, path, f"{folder}/METADATA"), _member(archive, path, f"{folder}/RECORD")


def _sdist(path: Path) -> bytes:
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            names = [
                name for name in archive.namelist() if name.endswith("/PKG-INFO") and name.count("/") == 1
            ]
            return _member(archive, path, _one(path, names))
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if m.isfile() and m.name.removeprefix("./").count("/") == 1]
        name = _one(path, [m.name for m in members if m.name.endswith("/PKG-INFO")])
        stream = tar.extractfile(name)
        assert stream is not None
        return _bounded(path, stream.read(MEMBER_MAX_BYTES + 1))


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    try:
        with archive.open(name) as stream:
            return _bounded(path, stream.read(MEMBER_MAX_BYTES + 1))
    except KeyError:
        raise UsageError(f'"{path}" has no {name}') from None


def _one(path: Path, names: list[str]) -> str:
    if len(names) != 1:
        raise UsageError(
            f'"{path}" has {len(names)} PKG-INFO in its top folder, a source distribution has one'
        )
    return names[0]


def _bounded(path: Path, data: bytes) -> bytes:
    if len(data) > MEMBER_MAX_BYTES:
        raise UsageError(f'"{path}": metadata larger than {MEMBER_MAX_BYTES} bytes')
    return data
