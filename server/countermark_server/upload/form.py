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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_input_stream

from countermark_server.errors import ServerError
from countermark_server.stores.immutable import unnamed_file

FIELD_MAX_BYTES = 8 * 1024 * 1024  # the README travels in `description`
FORM_MAX_BYTES = 16 * 1024 * 1024  # all fields beside the file
FORM_MAX_PARTS = 2000  # each classifier and requirement is a part
DRAIN_CHUNK = 256 * 1024
FILE_TYPES = ("bdist_wheel", "sdist")
_SINGLE = (":action", "protocol_version", "name", "version", "filetype", "attestations", "sha256_digest",
           "blake2_256_digest", "md5_digest")  # fmt: skip


class HashingFile:
    """An unnamed temporary file that hashes what is written to it and refuses to grow beyond its limit."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stream = unnamed_file(folder)
        self.length = 0
        self._max_bytes = max_bytes
        self._hashers: dict[str, Any] = {
            "sha256_digest": hashlib.sha256(),
            "blake2_256_digest": hashlib.blake2b(digest_size=32),
            "md5_digest": hashlib.md5(usedforsecurity=False),
        }

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

    def __getattr__(self, name: str) -> Any:  # read, seek, close, ...: as the temporary file does
        return getattr(self.stream, name)


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
    try:
        stream = get_input_stream(dict(environ), max_content_length=max_bytes + FORM_MAX_BYTES)
        mimetype, options = _content_type(environ)
        length = environ.get("CONTENT_LENGTH") or ""
        _, fields, files = _parser(folder, max_bytes).parse(
            stream, mimetype, int(length) if length.isdecimal() else None, options
        )
    except RequestEntityTooLarge:
        raise ServerError("too-large", f"the form is larger than a file of {max_bytes} bytes needs") from None
    except ValueError as error:
        raise ServerError("form-invalid", f"the form is not multipart/form-data: {error}") from None
    try:
        yield _form(fields, files)
    finally:
        for file in files.values():
            file.close()


def drain(environ: Mapping[str, Any], *, max_bytes: int) -> None:
    """Read past the rest of a request that is refused early: a client still sending would miss the answer."""
    stream, left = environ["wsgi.input"], max_bytes + FORM_MAX_BYTES
    try:
        left = min(left, int(environ.get("CONTENT_LENGTH") or 0))
    except ValueError:
        return
    while left > 0 and (chunk := stream.read(min(left, DRAIN_CHUNK))):
        left -= len(chunk)


def _parser(folder: Path, max_bytes: int) -> FormDataParser:
    def factory(
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> Any:
        return HashingFile(folder, max_bytes)

    return FormDataParser(
        stream_factory=factory,
        max_form_memory_size=FIELD_MAX_BYTES,
        max_form_parts=FORM_MAX_PARTS,
        silent=False,
    )


def _content_type(environ: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    mimetype, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
    if mimetype != "multipart/form-data":
        raise ServerError(
            "form-invalid", f"the form is {mimetype or 'of no type'!r}, must be multipart/form-data"
        )
    return mimetype, options


def _form(fields: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> Form:
    for name in _SINGLE:
        if len(fields.getlist(name)) > 1:
            raise ServerError("form-invalid", f"the form has the field {name!r} more than once")
    if fields.get(":action") != "file_upload":
        raise ServerError(
            "form-invalid", f"the form's :action is {fields.get(':action')!r}, must be 'file_upload'"
        )
    if fields.get("protocol_version", "1") != "1":
        raise ServerError(
            "form-invalid", f"the form's protocol_version is {fields['protocol_version']!r}, must be '1'"
        )
    if not fields.get("name"):
        raise ServerError("form-invalid", "the form has no name")
    if fields.get("filetype") not in FILE_TYPES:
        raise ServerError(
            "form-invalid", f"the form's filetype is {fields.get('filetype')!r}, must be bdist_wheel or sdist"
        )
    content = files.getlist("content")
    if len(content) != 1 or not content[0].filename:
        raise ServerError("form-invalid", f"the form has {len(content)} files named 'content', must have one")
    hashed = content[0].stream
    assert isinstance(hashed, HashingFile)
    _check_digests(fields, hashed)
    hashed.seek(0)
    return Form(
        name=fields["name"],
        version=fields.get("version") or None,
        filetype=fields["filetype"],
        filename=content[0].filename,
        attestations=fields.get("attestations") or None,
        file=hashed.stream,
        sha256=hashed.digests()["sha256_digest"],
        length=hashed.length,
    )


def _check_digests(fields: MultiDict[str, str], file: HashingFile) -> None:
    for name, actual in file.digests().items():
        said = fields.get(name)
        if said and not hmac.compare_digest(said.lower().encode(), actual.encode()):
            raise ServerError(
                "digest-mismatch", f"the form says {name} {said[:80]}, the file that arrived has {actual}"
            )
