"""The upload form: `multipart/form-data` as upload tools send it, read as a stream.

    :action=file_upload  protocol_version=1  name=acme.Demo  version=1.0  filetype=bdist_wheel
    sha256_digest=...  blake2_256_digest=...  md5_digest=...  attestations=[{...}]  content=<the file>

The file goes to an unnamed temporary file and is hashed on its way; when the request ends, however it ends, the
temporary file is gone. Fields may come before or after the file, and tools differ in which digests they send: each
one that is sent must be right, none is required. Metadata fields of the form (summary, classifiers, ...) are read
past: the file's own metadata counts.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_input_stream

from countermark_server.errors import ServerError
from countermark_server.stores.immutable import unnamed_file
from countermark_server.upload.multipart import read_parts

FIELD_MAX_BYTES = 8 * 1024 * 1024  # the README travels in `description`
FORM_MAX_BYTES = 16 * 1024 * 1024  # all fields beside the file
FORM_MAX_PARTS = 2000  # each classifier and requirement is a part
DRAIN_CHUNK = 256 * 1024
FILE_TYPES = ("bdist_wheel", "sdist")
_SINGLE = (":action", "protocol_version", "name", "version", "filetype", "attestations", "sha256_digest",
           "blake2_256_digest", "md5_digest")  # fmt: skip


SHA256 = "sha256_digest"
_HASHERS: dict[str, Callable[[], Any]] = {
    SHA256: hashlib.sha256,
    "blake2_256_digest": partial(hashlib.blake2b, digest_size=32),
    "md5_digest": partial(hashlib.md5, usedforsecurity=False),
}


class HashingFile:
    """An unnamed temporary file that hashes what is written to it and refuses to grow beyond its limit."""

    def __init__(self, folder: Path, max_bytes: int, digests: Iterable[str] = _HASHERS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stream = unnamed_file(folder)
        self.length = 0
        self._max_bytes = max_bytes
        self._hashers = {name: _HASHERS[name]() for name in digests}

    def write(self, data: bytes) -> int:
        self.length += len(data)
        if self.length > self._max_bytes:
            raise ServerError("too-large", f"the file has more than {self._max_bytes} bytes")
        for hasher in self._hashers.values():
            hasher.update(data)
        return self.stream.write(data)

    def digests(self) -> dict[str, str]:
        """The digests by the names the form gives them."""
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items()}


@dataclass(frozen=True)
class Form:
    """What arrived: the fields that count, and the file with its digest. Nothing of it is believed yet."""

    name: str
    version: str | None
    filetype: str
    filename: str
    attestations: str | None
    file: BinaryIO
    sha256: str
    length: int


@contextmanager
def read_form(environ: Mapping[str, Any], folder: Path, *, max_bytes: int) -> Iterator[Form]:
    """Read the request's form for the length of the block. ServerError: which field is at fault."""
    with ExitStack() as until:
        try:
            arrived = _arrived(environ, folder, until, max_bytes=max_bytes)
        except RequestEntityTooLarge:
            raise ServerError(
                "too-large", f"the form is larger than a file of {max_bytes} bytes needs"
            ) from None
        except ValueError as error:
            raise ServerError("form-invalid", f"the form is not multipart/form-data: {error}") from None
        yield _form(arrived)


def drain(environ: Mapping[str, Any], *, max_bytes: int) -> None:
    """Read past the rest of a request that is refused early: a client still sending would miss the answer."""
    stream, left = environ["wsgi.input"], max_bytes + FORM_MAX_BYTES
    try:
        left = min(left, int(environ.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return
    while left > 0 and (chunk := stream.read(min(left, DRAIN_CHUNK))):
        left -= len(chunk)


class _Arrived:
    """The parts as they came, by name: values of the fields that count, and files with their names."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.files: dict[str, list[tuple[str, HashingFile]]] = {}

    def get(self, name: str) -> str | None:
        """The first value of a field."""
        values = self.fields.get(name)
        return values[0] if values else None


def _arrived(environ: Mapping[str, Any], folder: Path, until: ExitStack, *, max_bytes: int) -> _Arrived:
    """Read the body; its files are closed with `until`."""
    stream = get_input_stream(dict(environ), max_content_length=max_bytes + FORM_MAX_BYTES)
    arrived = _Arrived()
    for number, (part, content) in enumerate(read_parts(stream, _boundary(environ))):
        if number >= FORM_MAX_PARTS:
            raise RequestEntityTooLarge
        if part.filename is None:
            value = _field(content, keep=part.name in _SINGLE)
            if value is not None:
                arrived.fields.setdefault(part.name, []).append(value.decode("utf-8", "replace"))
            continue
        file = HashingFile(folder, max_bytes)
        until.callback(file.stream.close)
        for chunk in content:
            file.write(chunk)
        arrived.files.setdefault(part.name, []).append((part.filename, file))
    return arrived


def _field(content: Iterator[bytes], *, keep: bool) -> bytes | None:
    """A field's value, or None once it was read past."""
    chunks, length = [], 0
    for chunk in content:
        length += len(chunk)
        if length > FIELD_MAX_BYTES:
            raise RequestEntityTooLarge
        if keep:
            chunks.append(chunk)
    return b"".join(chunks) if keep else None


def _boundary(environ: Mapping[str, Any]) -> str:
    mimetype, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
    if mimetype != "multipart/form-data":
        raise ServerError(
            "form-invalid", f"the form is {mimetype or 'of no type'!r}, must be multipart/form-data"
        )
    return options.get("boundary", "")


def _form(arrived: _Arrived) -> Form:
    for name in _SINGLE:
        if len(arrived.fields.get(name, ())) > 1:
            raise ServerError("form-invalid", f"the form has the field {name!r} more than once")
    action, version, filetype = map(arrived.get, (":action", "protocol_version", "filetype"))
    if action != "file_upload":
        raise ServerError("form-invalid", f"the form's :action is {action!r}, must be 'file_upload'")
    if version not in (None, "1"):
        raise ServerError("form-invalid", f"the form's protocol_version is {version!r}, must be '1'")
    if not (name := arrived.get("name") or ""):
        raise ServerError("form-invalid", "the form has no name")
    if filetype not in FILE_TYPES:
        raise ServerError(
            "form-invalid", f"the form's filetype is {filetype!r}, must be bdist_wheel or sdist"
        )
    filename, file = _only_file(arrived.files.get("content", ()))
    digests = file.digests()
    _check_digests(arrived, digests)
    file.stream.seek(0)
    return Form(
        name=name,
        version=arrived.get("version") or None,
        filetype=filetype,
        filename=filename,
        attestations=arrived.get("attestations") or None,
        file=file.stream,
        sha256=digests[SHA256],
        length=file.length,
    )


def _only_file(files: Sequence[tuple[str, HashingFile]]) -> tuple[str, HashingFile]:
    if len(files) != 1 or not files[0][0]:
        raise ServerError("form-invalid", f"the form has {len(files)} files named 'content', must have one")
    return files[0]


def _check_digests(arrived: _Arrived, digests: Mapping[str, str]) -> None:
    for name, actual in digests.items():
        said = arrived.get(name)
        if said and not hmac.compare_digest(said.lower().encode(), actual.encode()):
            raise ServerError(
                "digest-mismatch", f"the form says {name} {said[:80]}, the file that arrived has {actual}"
            )
