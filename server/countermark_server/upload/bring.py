"""Bringing: the bytes of a file that an import recorded, held against what its leaf says.

    bring(connection, file, artifact, now=...)     # after `fit` and after the blob is kept

An import logs names and hashes and brings no bytes. An owner brings them by uploading the file again, the operator
from a folder (operate/bringing.py), `rebuild` from the store. They must be exactly the bytes of the leaf, by length
and SHA-256, and as safe an archive as any upload's; then the file goes the way of all uploads from `logged` on: scan,
verdict, TUF target, simple page. Other bytes under the name are refused for ever.

Nothing here makes an entry, and nothing makes the file signed or uploaded: the leaf stays what it is, without an
envelope, and every reader says "imported". Its metadata is in no entry, so none is served beside the file.
"""

from __future__ import annotations

from typing import BinaryIO

from sqlalchemy import Connection

from countermark.rules import State
from countermark.rules_state import file_key
from countermark_server import submission
from countermark_server.errors import ServerError
from countermark_server.settings import Upload
from countermark_server.upload.artifact import Artifact, read_artifact
from countermark_server.upload.form import Form
from countermark_server.upload.names import Names


def fit(file: State, form: Form, limits: Upload) -> Artifact:
    """The artifact, if these bytes are those of the leaf and a sound archive. ServerError: nothing was stored."""
    if is_removed(file):
        raise ServerError("filename-spent", f"{file['filename']} was removed; its name stays spent")
    return matching(file, form, limits)


def is_removed(file: State) -> bool:
    """Whether its owner removed the file or moderators took it down: then nobody brings its bytes."""
    return file["removed"] is not None or file["takedown"] is not None


def matching(file: State, form: Form, limits: Upload) -> Artifact:
    """`fit`, whatever became of the file: for bytes that the registry held before."""
    at, name = file["index"], file["filename"]
    if form.sha256 != file["sha256"]:
        said = f"entry {at} of the log says SHA-256 {file['sha256']}, not {form.sha256}"
        raise ServerError("file-exists", f"File already exists: {name} was imported, {said}")
    if form.length != file["length"]:
        said = f"entry {at} of the log says {file['length']} bytes, the file has {form.length}"
        raise ServerError("statement-mismatch", f"{name}: {said}")
    key = file_key("", file["project"], name)
    return read_artifact(form, Names(file["project"], file["version"], key[3], name), limits)


def form_of(file: State, stream: BinaryIO, *, sha256: str, length: int) -> Form:
    """Bytes that did not come by a form, as one: what the leaf says, and what was measured."""
    said = (file["project"], file["version"], filetype_of(file), file["filename"])
    return Form(*said, attestations=None, file=stream, sha256=sha256, length=length)


def filetype_of(file: State) -> str:
    """What upload tools call it."""
    return "bdist_wheel" if file["filename"].endswith(".whl") else "sdist"


def bring(connection: Connection, file: State, artifact: Artifact, *, now: int) -> bool:
    """The submission of an imported file, whose blob is kept and whose leaf is public. False: it was there."""
    return submission.bring(
        connection,
        now=now,
        leaf_index=file["index"],
        leaf_hash=file["lh"],
        namespace="",
        project=file["project"],
        version=file["version"],
        filename=artifact.names.filename,
        served_name=file["filename"],
        display_name=artifact.display_name,
        sha256=artifact.sha256,
        length=artifact.length,
        filetype=filetype_of(file),
        requires_python=artifact.requires_python,
        import_index=file["import"],
        uploaded=file["time"],
    )
