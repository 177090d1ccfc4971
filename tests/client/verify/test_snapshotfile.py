"""snapshotfile.py against its oracle: stock ngclient, over repositories that somebody has changed.

`outcome` is what a client sees of a repository: the snapshot it loads, or the error, in tuf's own words. It is
asked of ngclient as it comes and of ngclient with our short cut; a difference of one letter is a failure.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import Updater
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from countermark import snapshotfile
from countermark.errors import NetworkError
from countermark.tufclient import read_snapshots_quickly, tuf_fetcher
from tests.log_world import key
from tests.mutations import changed_members, mutants

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)
BASE, TARGET, BITS = "https://tuf.test/tuf", "files/acme/acme-1.0.tar.gz", 3
COMPACT = JSONSerializer(compact=True)
SIGNERS = {role: CryptoSigner(key(f"quick {role}")) for role in ("root", "snapshot", "timestamp", "targets")}
Judge = Callable[[bytes], str]
Change = Callable[["Repository"], None]


class Repository:
    """A registry's metadata in memory, with eight succinct bins below `targets`, and all of its keys."""

    def __init__(self) -> None:
        root = Root(expires=LATER, consistent_snapshot=True)
        for role, signer in SIGNERS.items():
            root.add_key(signer.public_key, role)
        self.files = {"1.root.json": self.signed(root, "root")}
        bins = SIGNERS["targets"].public_key
        self.delegations = Delegations(
            {bins.keyid: bins}, succinct_roles=SuccinctRoles([bins.keyid], 1, BITS, "b")
        )
        self.meta: dict[str, Any] = {"targets.json": {"version": 1}}
        self.write_targets("targets", Targets(expires=LATER, delegations=self.delegations))
        for role in self.bins:
            self.meta[f"{role}.json"] = {"version": 1}
            self.write_targets(role, Targets(expires=LATER))
        self.version, self.stamp = 0, 0
        self.hashed, self.expires, self.signer = True, LATER, SIGNERS["snapshot"]
        self.publish({TARGET: 1})

    @property
    def bins(self) -> list[str]:
        return list(self.delegations.succinct_roles.get_roles())  # type: ignore[union-attr]

    def signed(self, signed: Any, role: str) -> bytes:
        metadata = Metadata(signed)
        metadata.sign(SIGNERS[role])
        return metadata.to_bytes(COMPACT)

    def write_targets(self, role: str, signed: Targets) -> None:
        signed.version = self.meta[f"{role}.json"]["version"]
        self.files[f"{signed.version}.{role}.json"] = self.signed(signed, "targets")

    def publish(self, lengths: dict[str, int]) -> None:
        """List targets of these lengths, in a new version of their bin and of the snapshot."""
        for path, length in lengths.items():
            role = self.delegations.succinct_roles.get_role_for_target(path)  # type: ignore[union-attr]
            self.meta[f"{role}.json"] = {"version": self.meta[f"{role}.json"]["version"] + 1}
            file = TargetFile(length, {"sha256": "00" * 32}, path)
            self.write_targets(role, Targets(expires=LATER, targets={path: file}))
        self.version += 1
        self.write_snapshot()

    def write_snapshot(self, raw: bytes | None = None) -> None:
        """Sign `meta` as it is, or serve these bytes, and let a timestamp name them."""
        if raw is None:
            raw = compact(self.document(), self.signer)
        self.files[f"{self.version}.snapshot.json"] = raw
        self.stamp += 1
        digest = {"sha256": hashlib.sha256(raw).hexdigest()} if self.hashed else None
        named = MetaFile(self.version, len(raw) if self.hashed else None, digest)
        self.files["timestamp.json"] = self.signed(
            Timestamp(self.stamp, expires=LATER, snapshot_meta=named), "timestamp"
        )

    def document(self) -> dict[str, Any]:
        expires = self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"_type": "snapshot", "expires": expires, "meta": self.meta, "spec_version": "1.0.31"}
        return {**said, "version": self.version}

    def get(self, url: str, *, missing_ok: bool = False, **_: Any) -> bytes | None:
        found = self.files.get(url.removeprefix(f"{BASE}/"))
        if found is None and not missing_ok:
            raise NetworkError(url)
        return found

    def post(self, url: str, body: bytes, **_: Any) -> Any:
        raise NetworkError(url)


def compact(signed: Any, signer: CryptoSigner) -> bytes:
    """What our registry would write of this document, true or not: its canonical JSON, signed."""
    message = encode_canonical(signed).encode()
    return around(message, message, signer)


def around(message: bytes, spelled: bytes, signer: CryptoSigner) -> bytes:
    """A file that spells its signed part one way and has a signature over these bytes."""
    signatures = json.dumps([signer.sign(message).to_dict()], sort_keys=True, separators=(",", ":"))
    return b'{"signatures":' + signatures.encode() + b',"signed":' + spelled + b"}"


# --- what a trusted set makes of one file ----------------------------------------------------------------


def judge(repository: Repository, *, quick: bool) -> Judge:
    """What ngclient's trusted set says to a snapshot that the timestamp names by version alone."""
    repository.hashed = False
    repository.write_snapshot()
    root, timestamp = repository.files["1.root.json"], repository.files["timestamp.json"]

    def look(raw: bytes) -> str:
        from tuf.ngclient.config import EnvelopeType

        trusted = TrustedMetadataSet(root, EnvelopeType.METADATA)
        trusted.reference_time = NOW
        if quick:
            trusted._load_data = snapshotfile.quick(trusted._load_data)
        trusted.update_timestamp(timestamp)
        try:
            found = trusted.update_snapshot(raw)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return repr((found.to_dict(), found.unrecognized_fields))

    return look


def corpus() -> Iterator[tuple[str, bytes]]:
    """Files that are nearly a snapshot: broken on the way, signed as they are, or signed over another spelling."""
    repository = Repository()
    honest = repository.files["1.snapshot.json"]
    signer, document = SIGNERS["snapshot"], repository.document()
    yield "honest", honest
    yield "indented", Metadata[Snapshot].from_bytes(honest).to_bytes(JSONSerializer())
    for mutant in mutants(honest):
        yield f"on the way, {mutant}", mutant.raw
    for changed in changed_members(document):
        try:
            yield f"signed, {changed.sort}, {changed.what}", compact(changed.document, signer)
        except (FormatError, UnicodeEncodeError, TypeError):
            continue  # no key can sign what has no canonical form
    for what, spelled in spellings(encode_canonical(document).encode()):
        yield f"spelled {what}, signed so", around(spelled, spelled, signer)
        yield f"spelled {what}, signed as it means", around(meaning(spelled), spelled, signer)


def spellings(canonical: bytes) -> Iterator[tuple[str, bytes]]:
    """Other bytes for what means nearly the same: what a careless short cut would take for canonical."""
    entries = canonical.partition(b'"meta":{')[2].partition(b"}},")[0].split(b"},")
    swaps = {
        "unsorted": (entries[0] + b"}," + entries[1], entries[1] + b"}," + entries[0]),
        "twice": (entries[0], entries[0] + b"}," + entries[0]),
        "twice with another version": (entries[0], entries[0].replace(b":2", b":9") + b"}," + entries[0]),
        "leading zero": (b'"version":1}', b'"version":01}'),
        "plus": (b'"version":1}', b'"version":+1}'),
        "exponent": (b'"version":1}', b'"version":1e0}'),
        "float": (b'"version":1}', b'"version":1.0}'),
        "zero": (b'"version":1}', b'"version":0}'),
        "negative": (b'"version":1}', b'"version":-1}'),
        "huge": (b'"version":1}', b'"version":' + b"9" * 30 + b"}"),
        "fifteen digits": (b'"version":1}', b'"version":' + b"9" * 15 + b"}"),
        "too many digits": (b'"version":1}', b'"version":' + b"9" * 5000 + b"}"),
        "text": (b'"version":1}', b'"version":"1"}'),
        "true": (b'"version":1}', b'"version":true}'),
        "escaped": (b'"targets.json"', b'"t\\u0061rgets.json"'),
        "escaped quote": (b'"targets.json"', b'"targets\\".json"'),
        "no ASCII": (b'"targets.json"', '"tärgets.json"'.encode()),
        "no UTF-8": (b'"targets.json"', b'"t\xe4rgets.json"'),
        "blank": (b'"meta":', b'"meta": '),
        "blank in an entry": (b'"version":1}', b'"version": 1}'),
        "line": (b"},", b"},\n"),
        "comma at the end": (b"}},", b"},},"),
        "comma missing": (b"},", b"}"),
        "with a length": (b'"version":1}', b'"length":5,"version":1}'),
        "with hashes": (b'"version":1}', b'"hashes":{"sha256":"aa"},"version":1}'),
        "with a surplus": (b'"version":1}', b'"version":1,"x":1}'),
        "no entries": (canonical.partition(b'"meta":{')[2].partition(b"},\"spec")[0], b""),
        "meta twice": (b'"meta":{', b'"meta":{},"meta":{'),
        "version twice": (b',"version":1}', b',"version":1,"version":1}'),
        "year 26": (b'"expires":"2026', b'"expires":"0026'),
        "month 13": (b"2026-01", b"2026-13"),
        "second 60": (b":00Z", b":60Z"),
        "other spec": (b'"1.0.31"', b'"2.0.31"'),
        "odd spec": (b'"1.0.31"', b'"1..31"'),
        "spec of one part": (b'"1.0.31"', b'"1"'),
        "other type": (b'"snapshot"', b'"timestamp"'),
        "snapshot 0": (b',"version":1}', b',"version":0}'),
        "snapshot 01": (b',"version":1}', b',"version":01}'),
        "member before": (b'"_type"', b'"AAA":1,"_type"'),
        "member behind": (b',"version":1}', b',"version":1,"x":1}'),
        "member between": (b',"spec_version"', b',"mid":{"meta":{}},"spec_version"'),
    }  # fmt: skip
    for what, (old, new) in swaps.items():
        assert old in canonical, what
        head, _, tail = canonical.rpartition(old) if old == b',"version":1}' else canonical.partition(old)
        yield what, head + new + tail
    for name in (
        "",
        ".",
        "..",
        "a b.json",
        "a/b.json",
        'q".json',
        "\\.json",
        "\x7f.json",
        "é.json",
        "A" * 300,
    ):
        changed = json.loads(canonical)
        changed["meta"][name] = {"version": 1}
        yield f"with the name {name!r}", encode_canonical(changed).encode()


def meaning(spelled: bytes) -> bytes:
    """The canonical form of what these bytes mean, for a key that signs the meaning; they themselves if none."""
    try:
        return bytes(encode_canonical(json.loads(spelled)).encode())
    except (ValueError, FormatError):
        return spelled


def judged() -> Iterator[tuple[str, str, str]]:
    """Each file of the corpus: what it is, what tuf says to it, and what tuf says with the short cut."""
    repository = Repository()
    stock, ours = judge(repository, quick=False), judge(repository, quick=True)
    for what, raw in corpus():
        yield what, stock(raw), ours(raw)


def test_no_file_is_judged_otherwise_than_by_tuf() -> None:
    """Every byte changed, every member changed and signed, every other spelling: the same error or value."""
    accepted = 0
    for what, stock, ours in judged():
        assert ours == stock, what
        accepted += stock.startswith("(")
    assert accepted > 100  # a corpus that is only refused shows little


@pytest.mark.parametrize("fault", ["order", "frame", "grammar", "signature"])
def test_a_careless_short_cut_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus holds a witness against each check of the short cut."""
    import re

    honest, quick = snapshotfile._FILE.pattern, snapshotfile.quick
    if fault == "order":
        careless = lambda text: {  # noqa: E731
            name: str(entry["version"]) for name, entry in json.loads("{" + text + "}").items()
        }
        monkeypatch.setattr(snapshotfile, "_versions", careless)
    elif fault == "frame":
        monkeypatch.setattr(Metadata, "signed_bytes", property(_Anything))
    elif fault == "grammar":
        monkeypatch.setattr(
            snapshotfile, "_FILE", re.compile(honest.replace(b"[1-9][0-9]{0,14}", b"[0-9]{1,15}"))
        )
    else:
        unsigned = lambda stock: lambda role, data, *_: quick(stock)(role, data)  # noqa: E731
        monkeypatch.setattr(snapshotfile, "quick", unsigned)
    assert any(ours != stock for _, stock, ours in judged())


class _Anything(bytes):
    """Equal to whatever it is compared with."""

    def __new__(cls, metadata: Metadata[Any]) -> _Anything:
        from tuf.api.serialization.json import CanonicalJSONSerializer

        return super().__new__(cls, CanonicalJSONSerializer().serialize(metadata.signed))

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True), st.integers(1, 2**53), min_size=1, max_size=40
    ),
    st.integers(1, 2**53),
)
def test_what_registries_write_takes_the_short_cut(versions: dict[str, int], version: int) -> None:
    """Whatever names and versions: tuf's compact file is read without tuf walking it, to the same value."""
    signed = Snapshot(version, expires=LATER, meta={name: MetaFile(each) for name, each in versions.items()})
    metadata = Metadata(signed)
    metadata.sign(SIGNERS["snapshot"])
    fits = all(each < 10**15 for each in (*versions.values(), version))
    found = snapshotfile.parse(metadata.to_bytes(COMPACT))
    assert (found is not None) == fits
    if found is not None:
        assert found[0].signed == metadata.signed
        assert (found[1], found[0].signatures) == (metadata.signed_bytes, metadata.signatures)


# --- what a client makes of a whole repository -----------------------------------------------------------


def outcome(repository: Repository, cache: Path, *, quick: bool) -> str:
    """A refresh and a look-up, from what the cache holds: the target, or the error; and the cache afterwards."""
    updater = Updater(
        metadata_dir=str(cache), metadata_base_url=BASE, fetcher=tuf_fetcher(repository),
        bootstrap=repository.files["1.root.json"],
    )  # fmt: skip
    updater._trusted_set.reference_time = NOW
    if quick:
        read_snapshots_quickly(updater)
    try:
        updater.refresh()
        info = updater.get_targetinfo(TARGET)
        said = repr(None if info is None else (info.length, info.path))
    except (RepositoryError, DownloadError) as error:
        said = f"{type(error).__name__}: {error}"
    kept = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in cache.iterdir() if path.is_file()
    }
    return f"{said} {sorted(kept.items())}"


def _bin(repository: Repository, version: int | None) -> None:
    """Give the target's bin another version in the snapshot, or none."""
    role = repository.delegations.succinct_roles.get_role_for_target(TARGET)  # type: ignore[union-attr]
    repository.meta.pop(f"{role}.json")
    if version is not None:
        repository.meta[f"{role}.json"] = {"version": version}


def _swapped(repository: Repository) -> None:
    role = repository.delegations.succinct_roles.get_role_for_target(TARGET)  # type: ignore[union-attr]
    other = next(name for name in repository.bins if name != role)
    meta = repository.meta
    meta[f"{role}.json"], meta[f"{other}.json"] = meta[f"{other}.json"], meta[f"{role}.json"]


def _each_back(number: int) -> Change:
    def change(repository: Repository) -> None:
        name = sorted(repository.meta)[number]
        repository.meta[name] = {"version": repository.meta[name]["version"] - 1}

    return change


CHANGES: dict[str, Change] = {
    "nothing": lambda r: None,
    "a file more": lambda r: r.publish({TARGET: 9}),
    "another bin changed": lambda r: r.publish({"files/other/other-1.tar.gz": 9}),
    "bin rolled back": lambda r: _bin(r, 1),
    "bin ahead of its file": lambda r: _bin(r, 99),
    "bin missing": lambda r: _bin(r, None),
    "bin of version 0": lambda r: _bin(r, 0),
    "bins swapped": _swapped,
    "a role too many": lambda r: r.meta.update({"zzz.json": {"version": 1}}),
    "targets missing": lambda r: r.meta.__delitem__("targets.json") or None,
    "targets rolled forward": lambda r: r.meta.update({"targets.json": {"version": 5}}),
    "wrong key": lambda r: setattr(r, "signer", SIGNERS["timestamp"]),
    "expired": lambda r: setattr(r, "expires", NOW - timedelta(seconds=1)),
    "expires now": lambda r: setattr(r, "expires", NOW),
    "version back": lambda r: setattr(r, "version", r.version - 1),
    "named without hashes": lambda r: setattr(r, "hashed", False),
    **{f"version {number} back": _each_back(number) for number in range(9)},
}
CACHES = ("none", "honest", "flipped", "cut", "empty", "indented", "future", "stale")


def _spoil(cache: Path, how: str, repository: Repository) -> None:
    """What somebody may do to the snapshot in the cache before the client comes back."""
    path = cache / "snapshot.json"
    raw = path.read_bytes()
    if how == "flipped":
        path.write_bytes(raw.replace(b'"version":1}', b'"version":8}', 1))
    elif how == "cut":
        path.write_bytes(raw[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "indented":
        path.write_bytes(Metadata[Snapshot].from_bytes(raw).to_bytes(JSONSerializer()))
    elif how == "future":  # by a key of another role
        document = {**repository.document(), "version": 99, "meta": {"targets.json": {"version": 1}}}
        path.write_bytes(compact(document, SIGNERS["timestamp"]))
    elif how == "stale":
        path.write_bytes(repository.files["1.snapshot.json"])


@pytest.mark.parametrize("cached", CACHES)
def test_no_repository_is_judged_otherwise_than_by_ngclient(tmp_path: Path, cached: str) -> None:
    """Rolled back, missing and swapped bins, before every state of the cache: the same end, the same files."""
    refused = 0
    for number, (what, change) in enumerate(CHANGES.items()):
        repository = Repository()
        repository.publish({TARGET: 2, "files/zeta/zeta-1.tar.gz": 3})
        cache = tmp_path / f"{number}"
        cache.mkdir()
        if cached != "none":
            outcome(repository, cache, quick=False)
            _spoil(cache, cached, repository)
        change(repository)
        repository.version += 1
        repository.write_snapshot()
        copies = [tmp_path / f"{number}-{quick}" for quick in (False, True)]
        for folder in copies:
            shutil.copytree(cache, folder, symlinks=True)
        stock, ours = (outcome(copy_, folder, quick=quick) for copy_, folder, quick in (
            (copy.copy(repository), copies[0], False), (copy.copy(repository), copies[1], True)
        ))  # fmt: skip
        assert ours == stock, what
        refused += "Error: " in stock
    assert 5 < refused < len(CHANGES)


def test_a_tuf_that_loads_elsewhere_is_an_error() -> None:
    """Fails when tuf moves it: the short cut must not be lost without a word, nor sit where nothing calls it."""
    updater = Updater.__new__(Updater)
    updater._trusted_set = object()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="loads its metadata"):
        read_snapshots_quickly(updater)


def test_a_refresh_takes_the_short_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm refresh makes tuf read no snapshot of ours entry by entry."""
    repository = Repository()
    outcome(repository, tmp_path, quick=True)
    monkeypatch.setattr(MetaFile, "from_dict", classmethod(_never))
    assert outcome(repository, tmp_path, quick=True).startswith("(1,")


def _never(_cls: type[MetaFile], value: dict[str, Any]) -> MetaFile:
    if "hashes" in value:  # the timestamp's one entry
        return MetaFile(value["version"], value["length"], value["hashes"])
    raise AssertionError("tuf walks the snapshot")
