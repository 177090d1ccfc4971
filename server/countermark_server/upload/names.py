"""Names at the door: a file name must parse as a wheel's or source distribution's and belong to the form's project.

Two parsers must accept it: `packaging`, which installers use, and our own (`countermark.entry`), which gives the
normalised name under which the log knows the file. A name they disagree about is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from countermark.entry import normalise_filename, normalise_project, normalise_version
from countermark.errors import MalformedError
from countermark_server.errors import ServerError
from countermark_server.upload.form import Form


@dataclass(frozen=True)
class Names:
    """Project and file as the log knows them, and the file name as its publisher spells it."""

    project: str
    version: str  # as the file name says, normalised
    filename: str  # normalised
    served_name: str


def parse_names(form: Form) -> Names:
    """The names in the form, if they fit each other."""
    served = form.filename
    if "/" in served or "\\" in served or not served.isascii() or not served.isprintable():
        raise ServerError(
            "filename-invalid", f"file name {served[:120]!r} holds characters that are not allowed"
        )
    try:
        project = normalise_project(form.name)
    except MalformedError as error:
        raise ServerError("name-invalid", str(error)) from None
    try:
        filename = normalise_filename(served)
        name, version = _parse(served)
        version_inside = normalise_version(str(version))
    except (MalformedError, InvalidWheelFilename, InvalidSdistFilename, InvalidVersion) as error:
        raise ServerError("filename-invalid", str(error)) from None
    if name != project:
        raise ServerError(
            "metadata-mismatch", f"file {served!r} is of project {name!r}, the form of {project!r}"
        )
    if served.endswith(".whl") != (form.filetype == "bdist_wheel"):
        raise ServerError("metadata-mismatch", f"file {served!r} is no {form.filetype}, as the form says")
    _check_version(form, version)
    return Names(project, version_inside, filename, served)


def _parse(filename: str) -> tuple[str, Version]:
    if filename.endswith(".whl"):
        name, version, _, _ = parse_wheel_filename(filename)
    else:
        name, version = parse_sdist_filename(filename)
    return str(name), version


def _check_version(form: Form, version: Version) -> None:
    if form.version is None:
        return
    try:
        said = Version(form.version)
    except InvalidVersion:
        raise ServerError(
            "form-invalid", f"the form's version {form.version[:80]!r} is not a version"
        ) from None
    if said != version:
        raise ServerError(
            "metadata-mismatch", f"file {form.filename!r} is of version {version}, the form of {said}"
        )
