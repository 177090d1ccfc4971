"""Names of projects, versions and files: which are legal, and which are the same.

    Friendly.Bard            -> friendly-bard                       (normalise_project, PEP 503)
    1.0.0-RC1                -> 1.0.0rc1                            (normalise_version, PEP 440)
    Foo_Bar-1.0-py3-none-any.whl   -> foo_bar-1-py3-none-any.whl    (normalise_filename)
    foo.bar-1.0.0.tar.gz           -> foo_bar-1.tar.gz

A log keeps a file name for ever, so two spellings that an installer takes for one file must be one name here:
installers compare normalised project names, and versions without trailing zeros. The normalised file name is
only the key of a file's state; what is served, signed and shown keeps the publisher's spelling.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from countermark.errors import MalformedError
from countermark.limits import NAME_MAX_CHARS
from countermark.values import dataclass, pattern

_ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SEPARATORS = pattern(r"[-_.]+")
_BUILD = pattern(r"[0-9][A-Za-z0-9_.]*")
_VERSION = pattern(  # PEP 440, appendix B
    r"v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>[0-9]+)?)?"
    r"(?P<post>-(?P<post_bare>[0-9]+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_number>[0-9]+)?)?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>[0-9]+)?)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE | re.ASCII,
)
_REMEMBERED = 8192  # of the names, versions and tags met last: files of a release share them
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}


@dataclass(frozen=True)
class FileName:
    """What a file name says: the project and version it belongs to, and the name that counts as the same."""

    project: str
    version: str
    normalised: str
    is_wheel: bool


@lru_cache(maxsize=_REMEMBERED)
def normalise_project(name: str) -> str:
    """PEP 503: runs of `-`, `_` and `.` are one dash, letters are small."""
    if len(name) > NAME_MAX_CHARS or not _is_name(name, "._-"):
        raise MalformedError(f"project name {_shown(name)} is not a legal name (PEP 508)")
    words = name.replace("_", "-").replace(".", "-").split("-")
    return "-".join(filter(None, words)).lower()


def matches(pattern: str, project: str) -> bool:
    """Whether a policy's pattern (`Acme_*`, as a shell reads it) means this normalised project name."""
    return fnmatchcase(project, _normal_pattern(pattern))


def is_project(pattern: str) -> bool:
    """Whether a policy's pattern is one project's name."""
    return _is_name(pattern, "._-")


@lru_cache(maxsize=_REMEMBERED)
def _normal_pattern(pattern: str) -> str:
    return _SEPARATORS.sub("-", pattern).lower()


def normalise_version(version: str, *, strip_zeros: bool = False) -> str:
    """PEP 440's normal form; `strip_zeros` drops trailing zeros of the release, so that 1.0 is 1."""
    return _versions(version)[strip_zeros]


@lru_cache(maxsize=_REMEMBERED)
def _versions(version: str) -> tuple[str, str]:
    """The normal form of a version, and the same without trailing zeros of the release."""
    if _is_plain(version):  # most are: the pattern takes longer to compile than a whole file to verify
        plain = version.split(".")
        return _release(plain, keep_zeros=True), _release(plain, keep_zeros=False)
    match = _VERSION.fullmatch(version) if len(version) <= NAME_MAX_CHARS else None
    if match is None:
        raise MalformedError(f"version {_shown(version)} is not a legal version (PEP 440)")
    epoch, release, pre, pre_number, post, bare, post_number, dev, dev_number, local = match.groups()
    parts = release.split(".")
    before = "" if epoch is None or (number := _number(epoch)) == "0" else f"{number}!"
    text = ""
    if pre is not None:
        text += _PRE.get(pre.lower(), pre.lower()) + _number(pre_number)
    if post is not None:
        text += ".post" + _number(bare or post_number)
    if dev is not None:
        text += ".dev" + _number(dev_number)
    if local is not None:
        words = _SEPARATORS.split(local.lower())
        text += "+" + ".".join(_number(word) if word.isdigit() else word for word in words)
    return before + _release(parts, keep_zeros=True) + text, before + _release(parts, keep_zeros=False) + text


def _is_plain(version: str) -> bool:
    """Whether it is numbers and dots alone."""
    return len(version) <= NAME_MAX_CHARS and version.isascii() and all(map(str.isdigit, version.split(".")))


def _release(parts: list[str], *, keep_zeros: bool) -> str:
    numbers = [_number(part) for part in parts]
    while len(numbers) > 1 and numbers[-1] == "0" and not keep_zeros:
        numbers.pop()
    return ".".join(numbers)


@lru_cache(
    maxsize=8192
)  # a name is asked for when its entry is parsed, and by the rules after the whole batch
def parse_filename(filename: str) -> FileName:
    """Take a wheel's or source distribution's file name apart."""
    if len(filename) > NAME_MAX_CHARS:
        raise MalformedError(f"file name {_shown(filename)} has more than {NAME_MAX_CHARS} characters")
    if filename.endswith(".whl"):
        return _parse_wheel(filename)
    for ending in (".tar.gz", ".zip"):
        if filename.endswith(ending):
            name, dash, version = filename.removesuffix(ending).rpartition("-")
            if dash:
                project = normalise_project(name)
                stem = f"{project.replace('-', '_')}-{normalise_version(version, strip_zeros=True)}"
                return FileName(project, normalise_version(version), stem + ending, False)
    raise MalformedError(
        f"file name {_shown(filename)} is neither a wheel (.whl) nor a source distribution (.tar.gz, .zip)"
    )


def normalise_filename(filename: str) -> str:
    """The name by which a file is known: equal for all spellings that mean the same file."""
    return parse_filename(filename).normalised


def _parse_wheel(filename: str) -> FileName:
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) not in (5, 6) or not _is_name(parts[0], "._"):
        raise MalformedError(
            f"file name {_shown(filename)} is not a wheel's (name-version-python-abi-platform)"
        )
    build, tags = parts[2:-3], parts[-3:]
    normal_tags = _tags("-".join(tags))
    if normal_tags is None or not all(_BUILD.fullmatch(part) for part in build):
        raise MalformedError(f"file name {_shown(filename)} has tags that are not a wheel's")
    version = parts[1].replace("_", "-")  # a wheel's file name writes the dashes of a version as `_`
    project = normalise_project(parts[0])
    stem = [project.replace("-", "_"), normalise_version(version, strip_zeros=True)]
    stem += [part.lower() for part in build]
    return FileName(project, normalise_version(version), f"{'-'.join(stem)}-{normal_tags}.whl", True)


@lru_cache(maxsize=_REMEMBERED)
def _tags(tags: str) -> str | None:
    """The three tags of a wheel in one spelling: small letters, the parts of each in order, once. None: not tags."""
    each = tags.split("-")
    if not all(map(_is_tag, each)):
        return None
    return "-".join(".".join(sorted(set(tag.lower().split(".")))) for tag in each)


def _is_name(text: str, marks: str) -> bool:
    """Whether it is letters and digits of ASCII, with these marks inside. (No pattern: see `_versions`.)"""
    return (
        text != ""
        and not text.strip(_ALPHANUMERIC + marks)
        and text[0] not in marks
        and text[-1] not in marks
    )


def _is_tag(text: str) -> bool:
    return all(part and not part.strip(_ALPHANUMERIC + "_") for part in text.split("."))


def _number(digits: str | None) -> str:
    return (digits or "0").lstrip("0") or "0"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
