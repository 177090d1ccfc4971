"""Installed files: what lies in an environment, held against the wheel that it should have come from.

    place = read_place(Path(".venv"))            # folders, prefix, the Python it is for, what is installed
    held = Held(place)
    held.compare(installed, wheel)               # every member of the wheel, where installers put it
    held.leave(installed, reason)                # nothing known of it: what its own RECORD claims is not provable
    held.rest()                                  # what nobody brought: extra files, and bytecode
    held.findings                                # Finding("modified", path, "...")

`RECORD` on disk is written by whoever installed, and by whoever changed a file afterwards. It is never believed:
the truth is the wheel, whose bytes the caller verified. What an installer adds to a wheel is known: its own notes
in the `.dist-info` folder, starters for entry points (three known texts), the first line of scripts, and bytecode.
Starters are compared as text, the first line must name this environment's Python, and bytecode is compiled again
(bytecode.py). What remains is a finding:

    modified     other bytes than the wheel's, or bytecode of other source
    missing      in the wheel and not here
    extra        nobody brought it; a `.pth`, `sitecustomize` or `usercustomize` runs whenever Python starts
    unprovable   nobody here can say: installed from elsewhere, or compiled by another Python

Nothing of the environment is run, not even its Python: a `.pth` file would be.

Not seen here: files outside of `site-packages` that no wheel brings (`bin/python` itself), and a Python whose
own library was changed.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from countermark import bytecode, starters
from countermark.errors import MalformedError, UsageError
from countermark.names import normalise_project, normalise_version
from countermark.values import dataclass, field

NOTES = frozenset({"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"})
UNHASHED = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s"})  # a RECORD cannot hold these hashes (PEP 427)
AT_START = re.compile(
    r"[^/]+\.pth|(?:site|user)customize(?:\.py|/__init__\.py|\.[^/]*\.so|\.pyc)", re.IGNORECASE
)
TEXT_MAX_BYTES = 8 * 1024 * 1024  # a source, a starter or one of an installer's notes
PIECE = 1024 * 1024
_COMPILED = re.compile(r"(?P<stem>.+)\.(?P<tag>(?!opt-)[a-z]+-[0-9]+)(?:\.opt-(?P<level>[12]))?\.pyc")
_SORTED = {"modified": 0, "extra": 1, "missing": 2, "unprovable": 3}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the wheel has it. `path` is relative to the environment; `project` may be empty."""

    kind: str  # modified | missing | extra | unprovable
    path: str
    told: str
    project: str = ""

    @property
    def at_start(self) -> bool:
        """Whether Python runs this file whenever it starts."""
        return AT_START.fullmatch(self.path.rpartition("site-packages/")[2]) is not None

    @property
    def rank(self) -> tuple[int, int, str]:
        """What is read first: what runs at every start, then by kind."""
        return (0 if self.at_start else 1, _SORTED[self.kind], self.path)


@dataclass(frozen=True)
class Installed:
    """One distribution, by the name of its `.dist-info` folder; `tags` are what its WHEEL claims."""

    project: str
    version: str
    folder: Path
    tags: frozenset[str]
    source: str | None  # of direct_url.json: it was installed from there, not from an index

    @property
    def site(self) -> Path:
        return self.folder.parent


@dataclass(frozen=True)
class Place:
    """An environment: its folders, and the Python that runs in it ("3.11"; None where nobody says)."""

    root: Path
    sites: tuple[Path, ...]
    scripts: Path
    python: str | None
    home: Path | None  # where the Python lies that it was made of
    sees_system: bool  # also imports what the system's Python has
    installed: tuple[Installed, ...]

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


# --- reading an environment -------------------------------------------------------------------------------


def read_place(path: Path) -> Place:
    """An environment by its folder, or a folder that packages were installed into. UsageError when it is neither."""
    path = _plain(Path.cwd() / path)
    config = _config(path / "pyvenv.cfg")
    candidates = [*sorted(path.glob("lib*/python*/site-packages")), path / "Lib" / "site-packages"]
    sites = list({os.path.realpath(site): site for site in reversed(candidates) if site.is_dir()}.values())
    root, scripts = path, path / ("Scripts" if (path / "Scripts").is_dir() else "bin")
    if not sites and (path.name in ("site-packages", "dist-packages") or any(path.glob("*.dist-info"))):
        sites = [path]
        if path.parent.parent.name.startswith("lib"):
            root, scripts = path.parents[2], path.parents[2] / "bin"
            config = _config(root / "pyvenv.cfg")
    if not sites:
        raise UsageError(
            f'"{path}" is no environment',
            hint="give the folder that holds pyvenv.cfg, or a site-packages folder",
        )
    installed = [_installed(folder) for site in sites for folder in sorted(site.glob("*.dist-info"))]
    version = config.get("version_info", config.get("version", ""))
    python = ".".join(version.split(".")[:2]) or next(
        (part.removeprefix("python") for part in sites[0].parts[::-1] if re.fullmatch(r"python3\.\d+", part)),
        None,
    )
    return Place(
        root=root,
        sites=tuple(sites),
        scripts=scripts,
        python=python,
        home=Path(config["home"]) if config.get("home") else None,
        sees_system=config.get("include-system-site-packages", "false").lower() == "true",
        installed=tuple(installed),
    )


def _config(path: Path) -> dict[str, str]:
    lines = _text(path).splitlines() if path.is_file() else []
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _installed(folder: Path) -> Installed:
    name, _, version = folder.name.removesuffix(".dist-info").partition("-")
    try:
        project, version = normalise_project(name), normalise_version(version.replace("_", "-"))
    except MalformedError:
        project = ""  # nothing that an index could know
    lines = _text(folder / "WHEEL").splitlines()
    tags = frozenset(line.partition(":")[2].strip() for line in lines if line.lower().startswith("tag:"))
    source = _text(folder / "direct_url.json")[:200] or None
    return Installed(project, version, folder, tags, source)


def _text(path: Path) -> str:
    """A small file, as far as it can be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(TEXT_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


# --- comparing --------------------------------------------------------------------------------------------


@dataclass
class Held:
    """What was compared so far: the files somebody brought, and the findings."""

    place: Place
    findings: list[Finding] = field(default_factory=list)
    compared: int = 0
    _brought: dict[Path, bool] = field(default_factory=dict)  # path -> whether it is as logged

    def compare(self, installed: Installed, wheel: zipfile.ZipFile) -> None:
        """Hold every file of the wheel against what lies where installers put it."""
        folders = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
        wheel_folder = folders.pop() if len(folders) == 1 else installed.folder.name
        for note in NOTES:
            self._brought[installed.folder / note] = True
        for info in wheel.infolist():
            if info.is_dir():
                continue
            top, _, inner = info.filename.partition("/")
            if top == wheel_folder and inner in UNHASHED:
                self._brought[installed.folder / inner] = True
                continue
            path = self._where(installed, info.filename, wheel_folder)
            if path is None:
                self._find("unprovable", installed.site / info.filename, "it has no known place", installed)
                continue
            is_script = top.endswith(".data") and inner.startswith("scripts/")
            self._hold(installed, wheel, info, path, is_script=is_script)
        self._starters(installed, wheel, wheel_folder)

    def leave(self, installed: Installed, reason: str | None = None) -> None:
        """No wheel to hold it against: what its RECORD claims, and no wheel brought, is its own word.

        Without a reason the caller has said what is wrong with it. What runs at every start is named all the same.
        """
        paths = [installed.site / name for name in _claimed(installed.folder / "RECORD")]
        paths += [path for path in installed.folder.rglob("*") if path.is_file()]
        new = {path for path in map(_plain, paths) if path not in self._brought and self._is_inside(path)}
        if reason is not None:
            self._find(
                "unprovable", installed.folder, f"{reason}; its {len(new)} files are its own word", installed
            )
        for path in sorted(new):
            self._brought[path] = False
            finding = Finding(
                "unprovable", self.place.shown(path), "it runs at every start", installed.project
            )
            if finding.at_start:
                self.findings.append(finding)

    def rest(self) -> None:
        """What is in the folders and nobody brought; and bytecode, which is compared with its source."""
        strange = 0
        for path in itertools.chain.from_iterable(_files(site) for site in self.place.sites):
            if path in self._brought:
                continue
            source = _source_of(path)
            if source is None or source not in self._brought:
                self._find("extra", path, "no wheel brought it")
            elif self._brought[source]:
                strange += self._is_strange(path, source)
        if strange:
            told = f"{strange} files of bytecode were not made by the Python that checks"
            self.findings.append(
                Finding("unprovable", "__pycache__", f"{told}; check with that Python, or delete them")
            )
        self.findings.sort(key=lambda finding: finding.rank)

    def _where(self, installed: Installed, name: str, wheel_folder: str) -> Path | None:
        """Where installers put this member of a wheel (PEP 427); None where nobody says."""
        top, _, inner = name.partition("/")
        site, root = installed.site, self.place.root
        if top == wheel_folder:
            return installed.folder / inner
        if not top.endswith(".data"):
            return site / name
        scheme, _, rest = inner.partition("/")
        if scheme in ("purelib", "platlib"):
            return next((s / rest for s in (site, *self.place.sites) if (s / rest).exists()), site / rest)
        if scheme == "scripts":
            return self.place.scripts / rest
        if scheme == "data":
            return root / rest
        headers = sorted((root / "include" / "site").glob(f"python*/*/{rest}")) if scheme == "headers" else []
        return headers[0] if len(headers) == 1 else None

    def _hold(
        self,
        installed: Installed,
        wheel: zipfile.ZipFile,
        info: zipfile.ZipInfo,
        path: Path,
        *,
        is_script: bool,
    ) -> None:
        self._brought[path] = False
        try:
            with wheel.open(info) as logged, path.open("rb") as found:
                if is_script and logged.readline(64).startswith(b"#!python"):
                    self._first_line(installed, path, found)
                elif is_script:
                    logged.seek(0)
                if not _is_same(logged, found):
                    told = f"sha256:{_sha256(path.open('rb'))} here, sha256:{_sha256(wheel.open(info))} in the wheel"
                    self._find("modified", path, told, installed)
                    return
        except FileNotFoundError:
            self._find("missing", path, "it is in the wheel", installed)
            return
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            self._find("modified", path, f"cannot be read: {error}", installed)
            return
        self._brought[path] = True
        self.compared += 1

    def _starters(self, installed: Installed, wheel: zipfile.ZipFile, wheel_folder: str) -> None:
        """The files by which entry points are started: written by the installer, in a known text."""
        for entry in starters.entry_points(wheel, f"{wheel_folder}/entry_points.txt"):
            path = self.place.scripts / entry.name
            program = path.with_name(f"{entry.name}.exe")
            if program.exists():
                self._find("unprovable", program, "a program made by the installer", installed)
                continue
            try:
                with path.open("rb") as found:
                    self._first_line(installed, path, found)
                    rest = found.read(TEXT_MAX_BYTES)
            except OSError:
                self._find("missing", path, f"it starts {entry.target}", installed)
                continue
            if rest in entry.texts:
                self.compared += 1
            else:
                self._find("modified", path, f"it does not just start {entry.target}", installed)

    def _first_line(self, installed: Installed, path: Path, found: IO[bytes]) -> None:
        """Which Python a script runs in: this environment's. Leaves the stream behind that line."""
        named, length = starters.interpreter(found.read(starters.HEAD_BYTES))
        found.seek(length)
        if named is None:
            self._find("modified", path, "its first line names no Python", installed)
            return
        is_here = named.parent == self.place.scripts if self.place.home else named.is_absolute()
        if not (is_here and starters.is_python(named)):
            self._find("modified", path, f"it is run by {named}", installed)

    def _is_strange(self, path: Path, source: Path) -> bool:
        """Compare bytecode with its source, which is as logged; True when nobody here can."""
        match = _COMPILED.fullmatch(path.name)
        try:
            pyc, raw, about = path.read_bytes(), source.read_bytes(), source.stat()
        except OSError as error:
            self._find("modified", path, f"cannot be read: {error}")
            return False
        if not bytecode.is_live(pyc, mtime=int(about.st_mtime), size=about.st_size):
            return False  # Python sees that it is not of this source, and writes it anew
        came = bytecode.comes_from(pyc, raw, optimise=int(match["level"] or 0) if match else 0)
        if came is False:
            self._find(
                "modified", path, f"it was not made from {self.place.shown(source)}, and runs in its place"
            )
        self.compared += came is True
        return came is None

    def _is_inside(self, path: Path) -> bool:
        return path.is_relative_to(self.place.root) or any(
            path.is_relative_to(site) for site in self.place.sites
        )

    def _find(self, kind: str, path: Path, told: str, installed: Installed | None = None) -> None:
        project = "" if installed is None else installed.project
        self.findings.append(Finding(kind, self.place.shown(path), told, project))


def _claimed(record: Path) -> list[str]:
    """The paths that a RECORD names."""
    try:
        return [row[0] for row in csv.reader(_text(record).splitlines()) if row]
    except csv.Error:
        return []


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder. Links to folders are not followed: they are named like files."""
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        yield from (Path(top, name) for name in sorted([*names, *links]))


def _source_of(path: Path) -> Path | None:
    """The source beside whose folder this bytecode lies; None for anything else."""
    match = _COMPILED.fullmatch(path.name)
    if match is None or path.parent.name != "__pycache__":
        return None
    return path.parent.parent / f"{match['stem']}.py"


def _is_same(one: IO[bytes], other: IO[bytes]) -> bool:
    while True:
        piece, beside = one.read(PIECE), other.read(PIECE)
        if piece != beside:
            return False
        if not piece:
            return True


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
