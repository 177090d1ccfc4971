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
folders, entries without SHA-256, and distributions that exist only as source and would have to be built.
Requirements carry hashes without file names (`filename` is None): the hash is looked up among the files of
that project and version.

`LockFile.inputs` holds the digest of every file that was read, so that a change during the run is noticed.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from countermark.errors import MalformedError, UsageError
from countermark.limits import LOCK_MAX_BYTES
from countermark.names import normalise_project

HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
REQUIREMENTS_DEPTH = 8  # files including files


@dataclass(frozen=True)
class Pinned:
    """One hash someone pinned, and what they pinned it for. `project` is normalised (PEP 503)."""

    project: str
    version: str
    filename: str | None
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Unprovable:
    """Something the installer would install and no hash pins. `local` marks the project's own folder."""

    project: str
    version: str | None
    reason: str
    local: bool = False


@dataclass(frozen=True)
class LockFile:
    """One lock, read whole. `indexes` are index settings found inside it, for the one line we print."""

    path: Path
    kind: str
    pinned: tuple[Pinned, ...]
    unprovable: tuple[Unprovable, ...]
    inputs: Mapping[Path, str] = field(default_factory=dict)
    indexes: tuple[str, ...] = ()

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
    if name == "pylock.toml" or (name.startswith("pylock.") and name.endswith(".toml")):
        return _toml_lock(path, "pylock.toml", _pylock_packages)
    return _requirements(path)


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
    )


def _uv_packages(document: Mapping[str, Any]) -> Iterator[Pinned | Unprovable]:
    if document["version"] != 1:
        raise ValueError(f"lock version {document['version']}, we know 1")
    for package in document.get("package", []):
        name, version, source = normalise_project(package["name"]), package.get("version"), package["source"]
        if "virtual" in source:
            continue  # the project's own table: nothing is built or installed for it
        folder = source.get("editable", source.get("directory"))
        if folder is not None:
            own = not Path(folder).is_absolute() and ".." not in Path(folder).parts
            yield Unprovable(name, version, f'built from the folder "{folder}"', local=own)
        elif "registry" in source:
            yield from _distributions(name, version, package.get("wheels", []), package.get("sdist"), "hash")
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
                name, version, package.get("wheels", []), package.get("sdist"), "hashes"
            )


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
        sdist = next((item for item in files if not item["name"].endswith(".whl")), None)
        yield from _distributions(name, version, wheels, sdist, "hash")


def _distributions(
    name: str,
    version: str | None,
    wheels: Sequence[Mapping[str, Any]],
    sdist: Mapping[str, Any] | None,
    key: str,
) -> Iterator[Pinned | Unprovable]:
    """The files of one package. A package that has no wheel would have to be built, which no hash covers."""
    if version is None:
        yield Unprovable(name, None, "has no pinned version")
        return
    for item in [*wheels, *([sdist] if sdist else [])]:
        digest, url = _sha256(item.get(key)), item.get("url")
        filename = item.get("name") or item.get("filename") or _basename(url or item.get("path") or "")
        if digest is None:
            yield Unprovable(name, version, f"{filename or 'a file'} has no SHA-256 in the lock")
        else:
            yield Pinned(name, version, filename or None, digest, url)
    if not wheels:
        reason = "exists only as source; a build runs code that no hash pins" if sdist else "lists no file"
        yield Unprovable(name, version, reason)


def _requirements(path: Path) -> LockFile:
    inputs: dict[Path, str] = {}
    found: list[Pinned | Unprovable] = []
    indexes: list[str] = []
    for line in _logical_lines(path, inputs, 0):
        if line.startswith("-") and not line.startswith(("-e", "--editable")):
            option, _, value = (
                line.partition("=") if line.startswith("--") and "=" in line else line.partition(" ")
            )
            if option in INDEX_OPTIONS:
                indexes.append(f"{option} {value.strip()}".strip())
            continue
        found.extend(_requirement(line))
    return LockFile(
        path=path,
        kind="requirements",
        pinned=tuple(item for item in found if isinstance(item, Pinned)),
        unprovable=tuple(item for item in found if isinstance(item, Unprovable)),
        inputs=inputs,
        indexes=tuple(indexes),
    )


INDEX_OPTIONS = frozenset(
    {"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host"}
)
REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*===?\s*(?P<version>[A-Za-z0-9.!+_-]+)\s*(?:;.*)?"
)


def _requirement(line: str) -> Iterator[Pinned | Unprovable]:
    """One requirement with its `--hash` options; anything but `name==version` cannot be looked up."""
    words = re.split(r"\s--hash[=\s]", " " + line)
    specifier, hashes = words[0].strip(), [word.strip() for word in words[1:]]
    match = REQUIREMENT.fullmatch(specifier)
    if match is None:
        yield Unprovable(_loose_name(specifier), None, f'"{specifier}" pins no version')
        return
    name, version = normalise_project(match["name"]), match["version"]
    digests = [digest for word in hashes if (digest := _sha256(word)) is not None]
    if not digests:
        yield Unprovable(name, version, "has no --hash=sha256:...")
    for digest in digests:
        yield Pinned(name, version, None, digest)


def _loose_name(specifier: str) -> str:
    """The project a requirement speaks of, or the requirement itself where it names none."""
    try:
        return normalise_project(re.split(r"[^A-Za-z0-9._-]", specifier)[0])
    except MalformedError:
        return specifier


def _logical_lines(path: Path, inputs: dict[Path, str], depth: int) -> Iterator[str]:
    """Lines as pip joins them: continuations, comments, and the files named by -r and -c."""
    if depth > REQUIREMENTS_DEPTH:
        raise UsageError(f'"{path}": requirements include each other more than {REQUIREMENTS_DEPTH} deep')
    raw = _bytes(path)
    inputs[path] = hashlib.sha256(raw).hexdigest()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f'"{path}" is not UTF-8: {error.reason} at byte {error.start}') from None
    for joined in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s+)#.*$", "", joined).strip()
        include = re.fullmatch(r"(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)", line)
        if include:
            yield from _logical_lines(path.parent / include[1], inputs, depth + 1)
        elif line:
            yield line


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
    """The digest in `sha256:<hex>` or in a table of hashes; None when there is no well-formed SHA-256."""
    if isinstance(value, Mapping):
        digest = str(value.get("sha256", ""))
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
