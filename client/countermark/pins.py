"""Pinned roots: which registries this machine trusts, and by which root each of them.

    ~/.config/countermark/registries/3f1c.../registry.json   {"first_use":false,"url":"https://registry.example"}
                                            root.json        the pinned root, byte for byte
                                            tuf/             what the TUF client verified last
                                            timeline.json    the heads seen (timeline.py)
                                            verified.txt     what was verified here (for the grace period)
                                            evidence/        contradictions (evidence.py)

*Trust is never fetched from the server it checks.* A root comes as a file from somebody, or from anywhere
at all when its twelve root words came from somebody (words.py). `first_use` marks the exception, a root
believed because it was the first one seen: it is refused under CI, and every later result says so.

The folder is trusted: who can write it decides what this machine believes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from countermark.digest import sha256
from countermark.disk import config_home, read_own, read_plain, replace_file
from countermark.errors import (
    EvidenceError,
    MalformedError,
    NetworkError,
    PolicyError,
    SignatureError,
    UsageError,
)
from countermark.limits import LOCAL_FILE_MAX_BYTES, MIRRORS_MAX, ROOT_MAX_BYTES, ROOT_MAX_VERSIONS
from countermark.tufjson import Root
from countermark.values import dataclass

if TYPE_CHECKING:
    from countermark.fetch import Fetcher


@dataclass(frozen=True)
class RootInfo:
    """What a root version says about itself. It proves nothing: whoever pins it vouches for it."""

    version: int
    expires: str
    trial: bool
    signed: bytes

    @property
    def words(self) -> str:
        """Its twelve words."""
        from countermark.words import root_words  # noqa: PLC0415  (a check shows none)

        return root_words(self.signed)

    @property
    def fingerprint(self) -> str:
        """Its digest in groups of digits."""
        from countermark.words import hex_groups  # noqa: PLC0415

        return hex_groups(self.signed)

    @classmethod
    def parse(cls, raw: bytes) -> RootInfo:
        """Read a root; MalformedError unless it is a root signed by its own threshold."""
        try:
            root = Root.parse(raw)
        except SignatureError as error:
            raise MalformedError(f"this is not a root signed by its own keys: {error}") from None
        return cls(
            version=root.version,
            expires=datetime.fromtimestamp(root.expires, UTC).strftime("%Y-%m-%d"),
            trial=root.trial,
            signed=root.signed,
        )


@dataclass(frozen=True)
class Registry:
    """One registry this machine has pinned."""

    url: str
    folder: Path
    root: bytes
    first_use: bool
    mirrors: tuple[
        str, ...
    ] = ()  # asked when the registry itself does not answer, in this order (mirrors.py)

    @cached_property
    def info(self) -> RootInfo:
        return RootInfo.parse(self.root)

    @property
    def metadata_url(self) -> str:
        return f"{self.url}/tuf"

    @property
    def log_url(self) -> str:
        return f"{self.url}/log"

    def admit(self, environment: Mapping[str, str], *, allow_trial: bool) -> list[str]:
        """Words every result must carry about this pin; PolicyError where CI must not use it."""
        ci = environment.get("CI", "").lower() in ("1", "true", "yes")
        remarks = []
        if self.info.trial:
            if ci and not allow_trial:
                raise PolicyError(
                    f"{self.url} is a trial registry, which CI must not rely on",
                    hint="--allow-trial accepts it; a real ceremony makes it unnecessary",
                )
            remarks.append("trial registry: its root says that nobody should rely on it")
        if self.first_use:
            if ci:
                raise PolicyError(
                    f"the root of {self.url} was trusted on first use, which CI must not rely on",
                    hint=f"countermark trust add {self.url} --root FILE",
                )
            remarks.append("root trusted on first use: nobody vouched for it")
        return remarks


class Home:
    """This user's folder of pinned registries, keys and policy."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_home()

    @property
    def policy_file(self) -> Path:
        return self.path / "policy.toml"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def registries(self) -> Iterator[Registry]:
        """Every pinned registry, by URL."""
        folder = self.path / "registries"
        found = [self._load(child) for child in folder.iterdir()] if folder.is_dir() else []
        yield from sorted((item for item in found if item is not None), key=lambda item: item.url)

    def registry(self, url: str | None) -> Registry:
        """The pin for a URL, or the only pin there is; PolicyError, with the command to run, where nothing is pinned.

        UsageError: several are pinned, and none is named.
        """
        if url is None:
            pinned = list(self.registries())
            if len(pinned) == 1:
                return pinned[0]
            if not pinned:
                raise PolicyError(
                    "no registry is pinned: trust is never fetched from the server it checks",
                    hint="countermark trust add URL --root FILE   (or --root-words '...')",
                )
            known = ", ".join(item.url for item in pinned)
            raise UsageError(f"which registry? {known}", hint="--registry URL, or set COUNTERMARK_REGISTRY")
        url = normalise_url(url)
        found = self._load(self._folder(url))
        if found is None:
            raise PolicyError(
                f"no trusted root for {url}: trust is never fetched from the server it checks",
                hint=f"countermark trust add {url} --root FILE   (or --root-words '...')",
            )
        return found

    def find(self, url: str) -> Registry | None:
        """The pin for a (normalised) URL, if there is one."""
        return self._load(self._folder(url))

    def add(
        self, url: str, root: bytes, *, first_use: bool = False, mirrors: Sequence[str] | None = None
    ) -> Registry:
        """Pin a root. Another root for a pinned registry is refused: remove the folder deliberately.

        `mirrors` replaces the list of mirrors; None keeps it.
        """
        url = normalise_url(url)
        info = RootInfo.parse(root)
        named = None if mirrors is None else _mirrors(url, mirrors)
        folder = self._folder(url)
        known = self._load(folder)
        if known is not None and known.root != root:
            raise PolicyError(
                f"{url} is pinned to another root (version {known.info.version}: {known.info.words})",
                hint=f'new roots are followed by themselves; to start over, delete "{folder}"',
            )
        kept = named if named is not None else known.mirrors if known else ()
        if known is None or (known.first_use and not first_use) or kept != known.mirrors:
            first_use = first_use if known is None else first_use and known.first_use
            document: dict[str, Any] = {"first_use": first_use, "url": url}
            if kept:
                document["mirrors"] = list(kept)
            replace_file(folder / "root.json", root)
            # If we stop here there is no registry.json, and so no pin.
            replace_file(folder / "registry.json", json.dumps(document, sort_keys=True).encode())
        registry = Registry(url, folder, root, first_use, kept)
        assert registry.info == info
        return registry

    def _folder(self, url: str) -> Path:
        return self.path / "registries" / sha256(url.encode()).hexdigest()[:16]

    def _load(self, folder: Path) -> Registry | None:
        raw = read_own(folder / "registry.json", max_bytes=LOCAL_FILE_MAX_BYTES)
        root = read_own(folder / "root.json", max_bytes=ROOT_MAX_BYTES)
        if raw is None or root is None:
            return None
        try:
            document: Any = json.loads(raw)
            mirrors = tuple(map(str, document.get("mirrors", ())))
            return Registry(str(document["url"]), folder, root, bool(document["first_use"]), mirrors)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f'"{folder}/registry.json" is damaged', hint="pin the root again") from None


def newer_roots(cache: Path, version: int) -> dict[int, bytes]:
    """The roots after `version` that ngclient keeps in its cache, by version; nobody vouches for them."""
    found: dict[int, bytes] = {}
    while len(found) < ROOT_MAX_VERSIONS:
        version += 1
        raw = read_plain(cache / "root_history" / f"{version}.root.json", max_bytes=ROOT_MAX_BYTES)
        if raw is None:
            break
        found[version] = raw
    return found


def _mirrors(url: str, mirrors: Sequence[str]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(map(normalise_url, mirrors)))
    if url in named or len(named) > MIRRORS_MAX:
        raise UsageError(f"at most {MIRRORS_MAX} mirrors, and the registry is none of its own")
    return named


def normalise_url(url: str) -> str:
    """One spelling per registry: scheme and host in lower case, no trailing slash, nothing after the path."""
    from urllib.parse import urlsplit  # noqa: PLC0415  (lazy: what is pinned is spelled already)

    try:
        parts = urlsplit(url.strip())
        _ = parts.port  # raises when it is no port
    except ValueError as error:
        raise UsageError(f'"{url}" is not a registry URL: {error}') from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f'"{url}" is not a registry URL', hint="for example https://registry.example")
    if "@" in parts.netloc:
        raise UsageError("a registry URL holds no password")
    path = re.sub(r"/simple/?$", "", parts.path).rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}"


def find_root(fetcher: Fetcher, url: str, words: str) -> bytes:
    """The root version these words name, out of those the registry serves. EvidenceError when none is it."""
    from countermark.words import check_root_words  # noqa: PLC0415

    seen = []
    for version in range(1, ROOT_MAX_VERSIONS + 1):
        raw = fetcher.get(f"{url}/tuf/{version}.root.json", max_bytes=ROOT_MAX_BYTES, missing_ok=True)
        if raw is None:
            break
        info = RootInfo.parse(raw)
        try:
            check_root_words(words, info.signed)
        except EvidenceError as error:
            seen.append(error)
            continue
        return raw
    if not seen:
        raise NetworkError(f"{url} serves no root")
    raise seen[-1]
