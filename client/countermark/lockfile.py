"""Lock files: what a project pinned, read from uv.lock, pylock.toml, poetry.lock or hashed requirements.

    [[package]]                                       Pinned(project="acme-demo", version="1.0.0",
    name = "acme-demo"                                       filename="acme_demo-1.0.0-py3-none-any.whl",
    version = "1.0.0"                        ->              sha256="ab12...", url="https://...")
    source = { registry = "https://..." }
    wheels = [{ url = "https://.../acme_demo-1.0.0-py3-none-any.whl", hash = "sha256:ab12..." }]

A lock says what someone once resolved. It proves nothing about the bytes behind a hash: a lock written
after an insider's swap pins the swapped bytes. So `run.py` asks the log about every `Pinned` before an
installer starts.

What a lock cannot pin is returned too, as `Unprovable` with its reason, never dropped: git and URL sources,
folders, entries without SHA-256 (or with another hash beside it, which an installer may take instead), and
distributions that exist only as source and would have to be built. Requirements carry hashes without file
names (`filename` is None): the hash is looked up among the files of that project and version.

Installers read requirements generously (abbreviated options, several on a line, quotes, variables, declared
encodings). What is installed from a line we read otherwise would be unverified, so only plain spellings are
taken: any other line is unprovable, and any other option is refused.

`LockFile.inputs` holds the digest of every file that was read, so that a change during the run is noticed.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from countermark.errors import MalformedError, UsageError
from countermark.limits import LOCK_MAX_BYTES
from countermark.names import normalise_project
from countermark.values import dataclass, field

UV_SOURCES = frozenset({"registry", "git", "url", "path", "directory", "editable", "virtual"})
HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
IDENTITY_KIND = "countermark"  # of an `attestation-identities` whose member `key` is a key ID of the log
REQUIREMENTS_DEPTH = 8  # files including files
ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+:"
)  # what installers fetch; one letter alone is a drive of Windows


@dataclass(frozen=True)
class Pinned:
    """One hash someone pinned, and what they pinned it for. `project` is normalised (PEP 503)."""

    project: str
    version: str
    filename: str | None
    sha256: str
    url: str | None = None
    keys: frozenset[str] = frozenset()  # of whose signature the lock says that it must be one of these


@dataclass(frozen=True)
class Unprovable:
    """Something the installer would install and no hash pins.

    `folder` is where a local project lies, relative to the lock; `member` marks the lock's own workspace.
    """

    project: str
    version: str | None
    reason: str
    folder: str | None = None
    member: bool = False
    is_source: bool = (
        False  # a source distribution, whose bytes a hash covers; building it runs what it likes
    )


@dataclass(frozen=True)
class LockFile:
    """One lock, read whole. `indexes` are index settings found inside it, for the one line we print."""

    path: Path
    kind: str
    pinned: tuple[Pinned, ...]
    unprovable: tuple[Unprovable, ...]
    inputs: Mapping[Path, str] = field(default_factory=dict)
    indexes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # the indexes that the packages of a uv.lock or poetry.lock came from

    def changed(self) -> list[Path]:
        """The files of this lock whose bytes are no longer the ones we read."""
        return [path for path, digest in self.inputs.items() if _digest_now(path) != digest]


def read_lock(path: Path) -> LockFile:
    """Read a lock by its name: uv.lock, poetry.lock, pylock[.name].toml; anything else is requirements."""
    name = path.name
    if name == "uv.lock":
        return _toml_lock(path, "uv.lock", _uv_packages)
    if name == "poetry.lock":
        return _toml_lock(path, "poetry.lock", _poetry_packages)
    if is_pylock(name):
        return _toml_lock(path, "pylock.toml", _pylock_packages)
    return _requirements(path)


def is_pylock(name: str) -> bool:
    """Whether a file of this name is read as PEP 751; everything else an installer takes is requirements."""
    return re.fullmatch(r"pylock\.(?:[^.]+\.)?toml", name) is not None


def _toml_lock(path: Path, kind: str, packages: Any) -> LockFile:
    raw = _bytes(path)
    try:
        document = tomllib.loads(raw.decode())
        found = list(packages(document))
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        MalformedError,
    ) as error:
        raise UsageError(f'"{path}" is not a {kind} we can read: {type(error).__name__}: {error}') from None
    return LockFile(
        path=path,
        kind=kind,
        pinned=tuple(item for item in found if isinstance(item, Pinned)),
        unprovable=tuple(item for item in found if isinstance(item, Unprovable)),
        inputs={path: hashlib.sha256(raw).hexdigest()},
        sources=tuple(sorted(_sources(document))),
    )


def _sources(document: Mapping[str, Any]) -> set[str]:
    """The indexes that packages name: of uv.lock `registry`, of poetry.lock `url`."""
    tables = [package.get("source", {}) for package in document.get("package", [])]
    return {
        str(table.get("registry") or table["url"]) for table in tables if {"registry", "url"} & table.keys()
    }


def _uv_packages(document: Mapping[str, Any]) -> Iterator[Pinned | Unprovable]:
    if document["version"] != 1:
        raise ValueError(f"lock version {document['version']}, we know 1")
    if "distribution" in document:  # uv reads it as it reads `package`
        raise ValueError(
            "`distribution` is how uv spelled `package` before it had a stable format; lock anew"
        )
    members = {normalise_project(name) for name in document.get("manifest", {}).get("members", [])}
    for package in document.get("package", []):
        name, version, source = normalise_project(package["name"]), package.get("version"), package["source"]
        kinds = source.keys() & UV_SOURCES
        if len(kinds) != 1:  # uv takes the first kind it knows, and we may not guess another
            raise ValueError(f"the source of {name} is {' and '.join(sorted(kinds)) or 'of no kind we know'}")
        (kind,) = kinds
        if kind == "virtual":
            continue  # the project's own table: nothing is built or installed for it
        if kind in ("editable", "directory"):
            folder = str(source[kind])
            own = name in members or (not members and folder == ".")
            yield Unprovable(name, version, f'built from the folder "{folder}"', folder, own)
        elif kind == "registry":
            yield from _distributions(
                name, version, package.get("wheels", []), _one(package.get("sdist")), "hash"
            )
        else:
            yield Unprovable(name, version, f"comes from {_source_words(source)}, not from an index")


def _pylock_packages(document: Mapping[str, Any]) -> Iterator[Pinned | Unprovable]:
    if not str(document["lock-version"]).startswith("1."):
        raise ValueError(f"lock version {document['lock-version']}, we know 1.x")
    for package in document.get("packages", []):
        name, version = normalise_project(package["name"]), package.get("version")
        other = next((kind for kind in ("vcs", "directory", "archive") if kind in package), None)
        if other is not None:
            yield Unprovable(
                name, version, f"comes from {_source_words({other: package[other]})}, not from an index"
            )
        else:
            yield from _distributions(
                name,
                version,
                package.get("wheels", []),
                _one(package.get("sdist")),
                "hashes",
                keys=_identities(package),
            )


def _identities(package: Mapping[str, Any]) -> frozenset[str]:
    """The keys in `attestation-identities` (PEP 751) of our kind; what other kinds mean, others check."""
    found = package.get("attestation-identities", [])
    return frozenset(str(item["key"]) for item in found if item["kind"] == IDENTITY_KIND)


def _poetry_packages(document: Mapping[str, Any]) -> Iterator[Pinned | Unprovable]:
    document["metadata"]["lock-version"]  # every poetry.lock has one
    for package in document.get("package", []):
        name, version, source = (
            normalise_project(package["name"]),
            package["version"],
            package.get("source", {}),
        )
        if source.get("type", "legacy") != "legacy":
            yield Unprovable(
                name, version, f"comes from {source['type']} {source.get('url', '')}, not from an index"
            )
            continue
        files = [{"name": item["file"], "hash": item["hash"]} for item in package.get("files", [])]
        wheels = [item for item in files if item["name"].endswith(".whl")]
        sources = [item for item in files if not item["name"].endswith(".whl")]
        yield from _distributions(name, version, wheels, sources, "hash")


def _one(sdist: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    return [sdist] if sdist else []


def _distributions(
    name: str,
    version: str | None,
    wheels: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
    key: str,
    *,
    keys: frozenset[str] = frozenset(),
) -> Iterator[Pinned | Unprovable]:
    """The files of one package. A package that has no wheel would have to be built, which no hash covers."""
    if version is None:
        yield Unprovable(name, None, "has no pinned version")
        return
    for item in [*wheels, *sources]:
        digest, url = _sha256(item.get(key)), item.get("url")
        filename = item.get("name") or item.get("filename") or _basename(url or item.get("path") or "")
        if digest is None:
            yield Unprovable(
                name, version, f"{filename or 'a file'} has no SHA-256, or another hash beside it"
            )
        else:
            yield Pinned(name, version, filename or None, digest, url, keys)
    if not wheels:
        reason = "exists only as source; a build runs code that no hash pins" if sources else "lists no file"
        yield Unprovable(name, version, reason, is_source=bool(sources))


def _requirements(path: Path) -> LockFile:
    inputs: dict[Path, str] = {}
    found: list[Pinned | Unprovable] = []
    indexes: list[str] = []
    for _, _, line in logical_lines(path, inputs):
        if line.startswith("-") and not line.startswith(("-e ", "--editable ", "--editable=")):
            indexes.extend(_option(path, line))
        else:
            found.extend(_requirement(line))
    return LockFile(
        path=path,
        kind="requirements",
        pinned=tuple(item for item in found if isinstance(item, Pinned)),
        unprovable=tuple(item for item in found if isinstance(item, Unprovable)),
        inputs=inputs,
        indexes=tuple(indexes),
    )


INDEX_OPTION = re.compile(
    r"(?:-i|-f|--(?:extra-)?index-url|--find-links|--trusted-host)(?:\s+|=)[^\s\\\"']+|--no-index"
)
HARMLESS_OPTION = re.compile(r"--require-hashes|--pre|--prefer-binary|--only-binary(?:\s+|=):all:")
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*===?\s*(?P<version>[A-Za-z0-9.!+_-]+)"
    r"\s*(?:;(?:(?!\s-).)*?)?"  # a marker; a word that begins with a dash is an option, wherever it stands
    r"(?P<hashes>(?:\s+--hash[=\s]\s*\S+)*)\s*"
)
VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")  # pip and uv put the environment's value here


def _option(path: Path, line: str) -> Iterator[str]:
    """One option on a line of its own: an index setting, or one that changes nothing we verify."""
    if INDEX_OPTION.fullmatch(line):
        yield " ".join(re.split(r"[\s=]+", line, maxsplit=1))
    elif not HARMLESS_OPTION.fullmatch(line):
        raise UsageError(
            f'"{path}": cannot tell what "{line}" makes an installer do',
            hint="write one option per line, in full, or give it to the installer elsewhere",
        )


def _requirement(line: str) -> Iterator[Pinned | Unprovable]:
    """One requirement with its `--hash` options; anything but `name==version` cannot be looked up."""
    match = REQUIREMENT.fullmatch(line)
    if match is None or VARIABLE.search(line):
        yield Unprovable(loose_name(line), None, f'"{line}" is not name==version with hashes, and no more')
        return
    name, version = loose_name(match["name"]), match["version"]
    hashes = re.split(r"\s+--hash[=\s]\s*", match["hashes"])[1:]
    digests = [_sha256(value) for value in hashes]
    if None in digests or not digests:
        # An installer takes a file that has any one of the hashes: each must be one we can look up.
        yield Unprovable(name, version, "has no --hash=sha256:..., or one of another kind beside it")
    for digest in filter(None, digests):
        yield Pinned(name, version, None, digest)


def loose_name(specifier: str) -> str:
    """The project a requirement speaks of, or the requirement itself where it names none."""
    try:
        return normalise_project(re.split(r"[^A-Za-z0-9._-]", specifier)[0])
    except MalformedError:
        return specifier


def logical_lines(path: Path, inputs: dict[Path, str], depth: int = 0) -> Iterator[tuple[Path, range, str]]:
    """Lines as pip joins them, and which of which file: continuations, comments, the files named by -r and -c."""
    if depth > REQUIREMENTS_DEPTH:
        raise UsageError(f'"{path}": requirements include each other more than {REQUIREMENTS_DEPTH} deep')
    raw = _bytes(path)
    inputs[path] = hashlib.sha256(raw).hexdigest()
    for numbers, joined in _joined(text_of(path, raw)):
        line = COMMENT.sub("", joined).strip()
        include = re.fullmatch(
            r"(?:-[rc]|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))([^\s\\\"'=]+)", line
        )
        if include and ADDRESS.match(include[1]):
            raise UsageError(
                f'"{path}": an installer would fetch "{include[1]}", which can change between two looks',
                hint="download it, and name the file",
            )
        if include and not VARIABLE.search(line):
            yield from logical_lines(path.parent / include[1], inputs, depth + 1)
        elif line:
            yield path, numbers, line


COMMENT = re.compile(r"(^|\s+)#.*$")
BREAKS = re.compile(
    "[\\0\\v\\f\\r\\x1c-\\x1e\\x85\\u2028\\u2029]"
)  # ends of line to Python, and so to pip; not to uv
CODING = re.compile(r"coding[:=]\s*([-\w.]+)")  # PEP 263, which pip obeys in the first two lines


def _joined(text: str) -> Iterator[tuple[range, str]]:
    """Physical lines with their continuations; a comment continues nothing and ends what it interrupts."""
    held, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        if line.endswith("\\") and not COMMENT.match(line):
            held += line.removesuffix("\\")
        else:
            yield range(first, number + 1), held + (" " if COMMENT.match(line) else "") + line
            held, first = "", number + 1
    yield range(first, number + 1), held


def text_of(path: Path, raw: bytes) -> str:
    """UTF-8 with plain line ends; what pip or uv would decode or split otherwise is refused."""
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f'"{path}" is not UTF-8: {error.reason} at byte {error.start}') from None
    if BREAKS.search(text):
        raise UsageError(f'"{path}" has line breaks that installers read differently')
    for line in text.split("\n")[:2]:
        coding = CODING.search(line) if line.startswith("#") else None
        if coding and coding[1].lower() not in ("utf-8", "utf8", "ascii"):
            raise UsageError(f'"{path}" declares the encoding {coding[1]}; only UTF-8 is read')
    return text


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f'cannot read "{path}": {error.strerror}') from None
    if len(raw) > LOCK_MAX_BYTES:
        raise UsageError(f'"{path}" is larger than {LOCK_MAX_BYTES} bytes')
    return raw


def _digest_now(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _sha256(value: object) -> str | None:
    """The digest in `sha256:<hex>` or in a table of that hash alone; None when there is anything else.

    Any one hash of a table is enough for an installer, so a second one could be of other bytes.
    """
    if isinstance(value, Mapping):
        digest = str(value.get("sha256", "")) if len(value) == 1 else ""
    else:
        algorithm, _, digest = str(value or "").partition(":")
        if algorithm != "sha256":
            return None
    return digest.lower() if HEX_SHA256.fullmatch(digest.lower()) else None


def _basename(url: str) -> str:
    return unquote(urlsplit(url).path.replace("\\", "/").rsplit("/", 1)[-1])


def _source_words(source: Mapping[str, Any]) -> str:
    kind, value = next(iter(source.items()))
    if isinstance(value, Mapping):
        value = value.get("url") or value.get("path") or ""
    return f"{kind} {value}".strip()
