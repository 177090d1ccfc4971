"""The artifact: what the file itself says it is, checked against its name and the form.

Three parties name the project and the version: the form, the file name, and the metadata inside the file. They
must agree, spellings aside (`acme.Demo-pkg` and `acme_demo_pkg` are one project, `1.0` and `1.0.0` one version).
What is kept comes from the inside: METADATA of a wheel, PKG-INFO of a source distribution.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from packaging.metadata import InvalidMetadata, Metadata
from packaging.version import Version

from countermark.entry import normalise_project, normalise_version
from countermark.errors import MalformedError
from countermark_server.archive.distribution import Distribution, examine
from countermark_server.archive.members import ArchiveError, Limits
from countermark_server.errors import ServerError
from countermark_server.settings import Upload
from countermark_server.upload.form import Form
from countermark_server.upload.names import Names

REQUIRES_PYTHON_MAX_CHARS = 1024  # honest ones have some dozen


@dataclass(frozen=True)
class Artifact:
    """One distribution, read and found consistent with itself."""

    names: Names
    display_name: str
    filetype: str
    sha256: str
    length: int
    metadata: bytes
    record_sha256: str | None
    requires_python: str | None

    @property
    def metadata_sha256(self) -> str:
        """The digest by which METADATA is committed to."""
        return hashlib.sha256(self.metadata).hexdigest()


def read_artifact(form: Form, names: Names, settings: Upload) -> Artifact:
    """Read the file in the form from its first byte to its last. ServerError: what does not fit."""
    limits = Limits(
        packed_bytes=form.length,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_members=settings.max_members,
    )
    try:
        found = examine(form.file, form.filename, limits)
    except ArchiveError as error:
        raise ServerError(error.code, f"{form.filename}: {error.detail}") from None
    name, version, requires_python = _metadata(found, form.filename)
    _check_inside(names, found, form, name, version)
    return Artifact(
        names=names,
        display_name=name,
        filetype=form.filetype,
        sha256=form.sha256,
        length=form.length,
        metadata=found.metadata,
        record_sha256=found.record_sha256,
        requires_python=requires_python,
    )


def _metadata(found: Distribution, filename: str) -> tuple[str, str, str | None]:
    """Name, normalised version and Requires-Python. Other fields may be what they like; readers differ there."""
    try:
        metadata = Metadata.from_email(found.metadata, validate=False)
        name, version = metadata.name, metadata.version
        requires_python = metadata.requires_python
        _ = metadata.metadata_version  # refuses a version of the format that nobody knows
        normalise_project(name)
        normalised = normalise_version(str(version))
    except (InvalidMetadata, MalformedError) as error:
        raise ServerError("metadata-invalid", f"metadata in {filename}: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServerError(
            "metadata-invalid", f"metadata in {filename} does not parse: {_first(error)}"
        ) from None
    text = None if requires_python is None else str(requires_python)
    if text is not None and len(text) > REQUIRES_PYTHON_MAX_CHARS:
        raise ServerError("metadata-invalid", f"Requires-Python in {filename} has {len(text)} characters")
    return name, normalised, text


def _check_inside(names: Names, found: Distribution, form: Form, name: str, version: str) -> None:
    inside = normalise_project(name)
    if inside != names.project:
        raise ServerError(
            "metadata-mismatch",
            f"{form.filename} is of project {names.project!r}, its metadata of {inside!r}",
        )
    if Version(version) != Version(names.version):
        raise ServerError(
            "metadata-mismatch", f"{form.filename} is of version {names.version}, its metadata of {version}"
        )
    if form.filename.endswith(".whl"):
        top_name, _, top_version = found.top.removesuffix(".dist-info").partition("-")
        if not _same(top_name, top_version, names):
            raise ServerError(
                "metadata-mismatch", f"{form.filename} holds {found.top}, the directory of another wheel"
            )


def _same(name: str, version: str, names: Names) -> bool:
    try:
        return normalise_project(name) == names.project and Version(
            normalise_version(version.replace("_", "-"))
        ) == Version(names.version)
    except MalformedError:
        return False


def _first(error: Any) -> str:
    """The first sentence of an error; groups (several bad fields) give their first member."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error) or type(error).__name__).splitlines()[0][:200]
