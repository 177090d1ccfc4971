"""Every check of an audit fails on its planted fault; each fault is a small story of who cheats and how."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from countermark import bins, rules
from countermark.audit import audit
from countermark.audit_report import CHECKS, AuditReport
from countermark.canonical import encode_canonical
from countermark.entry import Entry, make_entry
from countermark.evidence import EvidenceClass, parse
from countermark.evidence_check import check
from countermark.manifest import ZERO_NONCE, Line, format_manifest
from countermark.statement import KeySigner, Statement, sign
from countermark.tlog.note import Note
from countermark.trustfile import TrustFile
from countermark.tufjson import Root
from tests import staged
from tests.attacks.test_predecessor import PLANTED as PREDECESSOR_FAULTS
from tests.machine import Machine
from tests.simulator import ACCOUNT, HOUR, HTML, Published, World, signing_key

DAY = 24 * HOUR


@dataclass
class Scene:
    """A registry with two listed files, and an auditor's machine."""

    world: World
    wheel: Published
    machine: Machine

    def audit(self, world: World | None = None, **options: Any) -> AuditReport:
        world = world or self.world
        return audit(self.machine.registry, world, now=world.now, files=True, **options)

    def html(self, change: Callable[[bytes], bytes], path: str = "/simple/acme-demo/") -> None:
        """The page that old tools get says something else than the one in JSON."""
        before = self.world._html(path)
        assert before is not None
        after = change(before)
        assert after != before
        self.world.override[path + HTML] = after

    def settle(self) -> None:
        """Five minutes pass, and the log is cosigned again: nothing is in motion."""
        self.world.now += 300
        self.world.heartbeat()

    def page(self, change: Callable[[dict[str, Any]], object]) -> None:
        """The web server's page of acme-demo says something else."""
        document = json.loads(self.world._page("acme-demo") or b"")
        change(document)
        self.world.override["/simple/acme-demo/"] = json.dumps(document).encode()

    @property
    def bin(self) -> int:
        """The number of the wheel's bin."""
        return next(n for n in range(4) if self.wheel.target in self.world._held(n))

    def bin_name(self) -> str:
        return f"{self.world.bin_versions[self.bin]}.bins-{self.bin:x}.json"

    def publish_tuf(self, changed: list[bins.BinLeaf]) -> None:
        """tufrepo and timestamper together: log and sign whatever bins there are."""
        world = self.world
        world.log_tuf(len(world.entries), changed)
        world.sign_checkpoint()
        world.sign_timestamp(applied=world._applied())

    def set_bin(self, number: int, leaf: bins.BinLeaf) -> None:
        world = self.world
        world.bin_leaves[number] = leaf
        tree = bins.BinsTree.build([leaf.leaf_hash for leaf in world.bin_leaves])
        world.bins_root = tree.root
        world.tuf |= {f"bins/{name}": raw for name, raw in tree.tiles().items()}
        changes = bins.format_changes([leaf])
        world.tuf[f"changes/{hashlib.sha256(changes).hexdigest()}"] = changes
        world._write_snapshot()


@dataclass(frozen=True)
class Fault:
    """What is done, and what the audit must say."""

    plant: Callable[[Scene], object]
    code: str
    words: str
    audited_before: bool
    also: frozenset[str]


FAULTS: dict[str, Fault] = {}


def fault(code: str, words: str, *, audited_before: bool = False, also: tuple[str, ...] = ()) -> Any:
    """Register a planted fault: its finding's code, and words (values) its message must hold."""

    def register(plant: Callable[[Scene], object]) -> Callable[[Scene], object]:
        FAULTS[plant.__name__] = Fault(plant, code, words, audited_before, frozenset(also))
        return plant

    return register


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    world = World()
    wheel = world.publish("acme-demo")
    world.publish("beta", signed=False)
    scene = Scene(world, wheel, Machine(tmp_path, world))
    scene.settle()
    world.check()
    return scene


# --- who vouches for the view --------------------------------------------------------------------------------


@fault("view", "rollback", audited_before=True)
def the_timestamp_goes_back(scene: Scene) -> None:
    scene.world.sign_timestamp(applied=scene.world._applied(), version=1)


@fault("view-identity", "not the registry whose root is pinned")
def somebody_elses_timestamp(scene: Scene) -> None:
    scene.world.override["/tuf/timestamp.json"] = World(keys="mallory").tuf["timestamp.json"]


@fault("view-policy", "not one the root")
def stolen_trust_keys_sign_another_trust_file(scene: Scene) -> None:
    other = replace(scene.world.trust_file, version=2)
    scene.world.sign_trust(TrustFile.format(other))


@fault("view-late", "operator")
def the_timestamper_sleeps(scene: Scene) -> None:
    scene.world.now += 2 * HOUR


@fault("view-late", "expired")
def the_timestamp_expires(scene: Scene) -> None:
    scene.world.now += 25 * HOUR


@fault("unreachable", "the simple index")
def the_index_is_down(scene: Scene) -> None:
    scene.world.down = lambda path: path.startswith("/simple/")


# --- the log -------------------------------------------------------------------------------------------------


@fault("checkpoint", "not signed by its key")
def the_public_checkpoint_lacks_a_log_line(scene: Scene) -> None:
    note = Note.parse(scene.world.checkpoint)
    scene.world.override["/log/checkpoint"] = Note(note.text, note.signatures[1:]).format()


@fault("checkpoint", "lacks the quorum")
def the_public_checkpoint_lacks_the_witness(scene: Scene) -> None:
    note = Note.parse(scene.world.checkpoint)
    scene.world.override["/log/checkpoint"] = Note(note.text, note.signatures[:2]).format()


@fault("checkpoint-back", "size")
def the_public_checkpoint_goes_back(scene: Scene) -> None:
    scene.world.override["/log/checkpoint"] = scene.world.checkpoint
    scene.world.publish("gamma")
    scene.settle()


@fault("fork", "another root hash", audited_before=True, also=("view",))
def history_is_rewritten(scene: Scene) -> None:
    """Log keys, witness and TUF collude: the wheel's last entries were others."""
    world = World()
    world.publish("acme-demo", data=b"other bytes")
    for name in ("beta", "gamma", "delta"):
        world.publish(name)
    world.now = scene.world.now + 60
    world.heartbeat()
    scene.world = world


@fault("fork-timestamp", "the checkpoint in the timestamp")
def the_timestamp_carries_another_history(scene: Scene) -> None:
    world, other = scene.world, scene.world.copy()
    other.publish("evil")
    world.publish("fine")
    scene.settle()
    other.sign_checkpoint()
    world.sign_timestamp(applied=world._applied(), checkpoint=other.checkpoint)


def _flipped(raw: bytes | None) -> bytes:
    assert raw
    return raw[:-1] + bytes([raw[-1] ^ 1])


@fault("tile", "tile/0/000")
def a_tile_is_altered(scene: Scene) -> None:
    path = f"/log/tile/0/000.p/{scene.world.log_size}"
    scene.world.override[path] = _flipped(scene.world._resource(path))


@fault("bundle", "the tree has")
def an_entry_is_altered(scene: Scene) -> None:
    path = f"/log/tile/entries/000.p/{scene.world.log_size}"
    scene.world.override[path] = _flipped(scene.world._resource(path))


@fault("rule", "malformed")
def the_log_takes_what_is_no_entry(scene: Scene) -> None:
    _append_raw(scene.world, b"\x00 nothing anybody can read")
    scene.settle()


@fault("rule", "file-exists")
def a_spent_name_is_published_again(scene: Scene) -> None:
    _append_publish(scene, scene.wheel.filename, scene.world.publisher)


@fault("rule-identity", "is not enrolled")
def an_unknown_key_publishes(scene: Scene) -> None:
    _append_publish(scene, "acme_demo-9.0-py3-none-any.whl", KeySigner(signing_key("thief")))


@fault("rule", "prev-stale")
def a_statement_is_replayed(scene: Scene) -> None:
    world = scene.world
    world.yank(scene.wheel)
    _append_raw(world, world.entries[-1])
    world.release()
    scene.settle()


def _append_publish(scene: Scene, filename: str, signer: KeySigner) -> None:
    world = scene.world
    predicate = {
        "length": 5, "metadata_sha256": "00" * 32, "namespace": "", "origin": world.origin, "prev": None,
        "project": "acme-demo", "record_sha256": "11" * 32, "version": filename.split("-")[1],
    }  # fmt: skip
    statement = Statement(filename, hashlib.sha256(b"other").hexdigest(), "publish", predicate)
    registry = {"identity": None, "key_index": world.key_index("acme-demo"), "uploader": ACCOUNT}
    entry = make_entry(type="publish", envelope=sign(statement, signer), registry=registry, time=world.now)
    _append_raw(world, entry.raw)
    scene.settle()


def _append_raw(world: World, raw: bytes) -> None:
    """The sequencer takes what the rules refuse."""
    world.append_raw(raw)
    world.view.apply(rules.skip(world.view))


@fault("leaf-time", "is stamped")
def an_entry_is_stamped_ahead(scene: Scene) -> None:
    scene.world.now += HOUR
    scene.world.enroll("gamma")
    scene.world.now -= HOUR
    scene.world.heartbeat()


@fault("applied-late", "takedown")
def a_takedown_is_not_applied(scene: Scene) -> None:
    scene.world.decide("takedown", scene.wheel, "malware")
    scene.world.now += 1200
    scene.world.heartbeat()


# --- from the log to TUF -------------------------------------------------------------------------------------


@fault("tuf-file", "1.index.json has SHA-256")
def the_index_role_signs_what_is_not_logged(scene: Scene) -> None:
    world = scene.world
    metadata = Metadata[Targets].from_bytes(world.tuf["1.index.json"])
    metadata.signed.unrecognized_fields["x-unlogged"] = True
    world.tuf["1.index.json"] = world._signed(metadata.signed, "index")


@fault("tuf-file-missing", "1.root.json")
def a_root_is_withheld(scene: Scene) -> None:
    del scene.world.tuf["1.root.json"]


def _newest_changes(scene: Scene) -> str:
    return next(name for name in reversed(list(scene.world.tuf)) if name.startswith("changes/"))


@fault("changes", "the entry says")
def the_list_of_changed_bins_is_altered(scene: Scene) -> None:
    name = _newest_changes(scene)
    scene.world.tuf[name] = scene.world.tuf[name].replace(b"bins-", b"bins-1", 1)


@fault("changes-missing", "is not served")
def the_list_of_changed_bins_is_withheld(scene: Scene) -> None:
    del scene.world.tuf[_newest_changes(scene)]


# --- from TUF to the log -------------------------------------------------------------------------------------


@fault("timestamp-snapshot", "says snapshot")
def a_snapshot_is_signed_that_nobody_logged(scene: Scene) -> None:
    scene.world._write_snapshot()
    scene.world.sign_timestamp(applied=scene.world._applied())


@fault("timestamp-applied", "says applied")
def the_timestamp_claims_more_applied(scene: Scene) -> None:
    scene.world.sign_timestamp(applied=scene.world._applied() + 1)


@fault("timestamp-bins", "says bins root", also=("bins-root",))
def the_timestamp_signs_another_bins_root(scene: Scene) -> None:
    member = {"bit_length": 2, "root": "00" * 32}
    scene.world.sign_timestamp(applied=scene.world._applied(), **{"x-countermark-bins": member})


@fault("timestamp-unlogged", "is in no tuf entry", audited_before=True)
def a_timestamp_was_shown_and_never_logged(scene: Scene) -> None:
    scene.world.logged_timestamps.clear()
    scene.world.publish("gamma")
    scene.settle()


# --- bins ----------------------------------------------------------------------------------------------------


@fault("tuf-signature", "0 of 1 signatures")
def a_bin_is_signed_by_another_key(scene: Scene) -> None:
    world = scene.world
    signed = Metadata[Targets].from_bytes(world.tuf[scene.bin_name()]).signed
    world.tuf[scene.bin_name()] = world._signed(signed, "snapshot")


@fault("tuf-form", "is of version 1")
def a_bin_is_served_in_an_old_version(scene: Scene) -> None:
    scene.world.tuf[scene.bin_name()] = scene.world.tuf[f"1.bins-{scene.bin:x}.json"]


@fault("snapshot-roles", "bins-9")
def the_snapshot_lists_a_role_too_many(scene: Scene) -> None:
    world = scene.world
    world.bin_leaves.append(replace(world.bin_leaves[0], role="bins-9"))
    world._write_snapshot()
    world.bin_leaves.pop()
    scene.publish_tuf([])


@fault("version-back", "to 1", audited_before=True, also=("bin-listing",))
def a_bin_goes_back_for_who_lost_the_cache(scene: Scene) -> None:
    world, role = scene.world, f"bins-{scene.bin:x}"
    raw = world.tuf[f"1.{role}.json"]
    leaf = bins.BinLeaf(role, 1, hashlib.sha256(raw).hexdigest(), bins.targets_root({}))
    scene.set_bin(scene.bin, leaf)
    scene.publish_tuf([leaf])
    shutil.rmtree(scene.machine.cache)  # else TUF's client sees it first


@fault("two-versions", "at the last audit it had", audited_before=True)
def one_version_of_a_bin_is_two_files(scene: Scene) -> None:
    world, number = scene.world, scene.bin
    signed = Metadata[Targets].from_bytes(world.tuf[scene.bin_name()]).signed
    signed.unrecognized_fields["x-other"] = True
    world.tuf[scene.bin_name()] = raw = world._signed(signed, "bins")
    leaf = replace(world.bin_leaves[number], sha256=hashlib.sha256(raw).hexdigest())
    scene.set_bin(number, leaf)
    scene.publish_tuf([leaf])


@fault("bin-listing", "the log demands absent")
def a_removed_file_stays_listed(scene: Scene) -> None:
    """tufrepo and timestamper omit a takedown and claim to have applied it."""
    scene.world.decide("takedown", scene.wheel, "malware")
    changed = scene.world.write_bins()
    scene.world.pages.pop("acme-demo")
    scene.publish_tuf(changed)
    scene.settle()


@fault("bin-listing", "the log demands absent")
def a_file_is_listed_that_nobody_logged(scene: Scene) -> None:
    target = scene.world.targets[scene.wheel.target]
    scene.world.targets["files/acme-demo/acme_demo-6.6-py3-none-any.whl"] = target
    scene.publish_tuf(scene.world.write_bins())


@fault("bin-listing", "the log demands absent")
def a_release_is_listed_that_too_few_approved(scene: Scene) -> None:
    staged.require(scene.world, "acme-demo", 1)
    file = scene.world.publish("acme-demo", "6.6")
    assert file.target not in scene.world.targets
    scene.world.targets[file.target] = staged.target(scene.world, file)
    scene.publish_tuf(scene.world.write_bins())


@fault("bin-listing", "the bin says absent")
def a_listed_file_is_left_out(scene: Scene) -> None:
    del scene.world.targets[scene.wheel.target]
    scene.publish_tuf(scene.world.write_bins())


@fault("bin-listing", "ff" * 32)
def a_target_has_another_hash(scene: Scene) -> None:
    target = scene.world.targets[scene.wheel.target]
    scene.world.targets[scene.wheel.target] = {**target, "hashes": {"sha256": "ff" * 32}}
    scene.publish_tuf(scene.world.write_bins())


@fault("bins-tile", "it must be")
def a_tile_of_the_bins_root_is_altered(scene: Scene) -> None:
    assert scene.world.bins_root
    name = f"bins/{scene.world.bins_root.hex()}"
    scene.world.tuf[name] = _flipped(scene.world.tuf[name])


@fault("trust-file", "it must be", audited_before=True)
def a_listed_trust_file_is_altered(scene: Scene) -> None:
    name = next(name for name in scene.world.tuf if name.startswith("targets/trust/"))
    scene.world.tuf[name] = _flipped(scene.world.tuf[name])


@fault("bins-root", "the bins as served have the root")
def log_and_timestamp_agree_on_a_false_bins_root(scene: Scene) -> None:
    scene.world._write_snapshot()
    scene.world.bins_root = bytes(32)
    scene.publish_tuf([scene.world.bin_leaves[0]])
    changes = bins.format_changes([scene.world.bin_leaves[0]])
    scene.world.tuf[f"changes/{hashlib.sha256(changes).hexdigest()}"] = changes


# --- the simple index ----------------------------------------------------------------------------------------


@fault("page-extra", "has no entry in the log")
def a_file_is_shown_that_was_never_logged(scene: Scene) -> None:
    scene.world.pages["acme-demo"]["acme_demo-6.6-py3-none-any.whl"] = "ee" * 32


@fault("page-extra", "was withdrawn")
def a_removed_file_stays_on_its_page(scene: Scene) -> None:
    scene.world.decide("takedown", scene.wheel, "malware")
    pages = {name: dict(files) for name, files in scene.world.pages.items()}
    scene.world.release()
    scene.world.pages = pages
    scene.settle()


@fault("page-extra", "in no entry")
def a_project_is_shown_that_was_never_logged(scene: Scene) -> None:
    scene.world.pages["squatted"] = {}


@fault("page-hash", "entry")
def a_page_shows_another_hash(scene: Scene) -> None:
    scene.world.pages["acme-demo"][scene.wheel.filename] = "dd" * 32


@fault("page-size", "says 7")
def a_page_shows_another_size(scene: Scene) -> None:
    scene.page(lambda page: page["files"][0].update(size=7))


@fault("page-entry", "says (0,")
def a_page_names_another_entry(scene: Scene) -> None:
    scene.page(lambda page: page["files"][0].update(_countermark={"index": 0, "leaf_hash": "00" * 32}))


@fault("page-yanked", "the page says yanked False")
def a_yank_is_not_shown(scene: Scene) -> None:
    scene.world.yank(scene.wheel)
    scene.world.release()
    scene.settle()
    scene.page(lambda page: page["files"][0].update(yanked=False))


@fault("page-missing", "not on the page")
def a_listed_file_is_hidden(scene: Scene) -> None:
    scene.page(lambda page: page["files"].clear())


@fault("page-malformed", "is not the page")
def a_page_is_of_another_project(scene: Scene) -> None:
    scene.page(lambda page: page.update(name="beta"))


@fault("page-hash", "the HTML page of 'acme-demo' says")
def only_the_html_page_shows_another_hash(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(scene.wheel.sha256.encode(), b"cc" * 32))


@fault("page-extra", "on the HTML page of 'acme-demo' has no entry")
def only_the_html_page_shows_a_file_too_many(scene: Scene) -> None:
    link = b'<a href="/packages/acme-demo/acme_demo-6.6.tar.gz#sha256=' + b"cc" * 32
    scene.html(lambda raw: raw.replace(b"</body>", link + b'">acme_demo-6.6.tar.gz</a></body>'))


@fault("page-missing", "not on the HTML page")
def the_html_page_is_empty(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(b"<a ", b"<b "))


@fault("page-yanked", "the HTML page says yanked False")
def only_the_html_page_hides_that_a_file_is_yanked(scene: Scene) -> None:
    scene.world.yank(scene.wheel)
    scene.world.release()
    scene.settle()
    scene.html(lambda raw: raw.replace(b"data-yanked", b"data-other"))


@fault("metadata", "the HTML page of 'acme-demo' says")
def only_the_html_page_shows_another_metadata_digest(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(b'metadata="sha256=', b'metadata="sha256=00'))


@fault("page-malformed", "the link to 'acme_demo-6.6-py3-none-any.whl' says")
def a_link_leads_elsewhere_than_its_text_says(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(b"demo/acme_demo-1.0", b"demo/acme_demo-6.6"))


@fault("page-malformed", "all its links lead elsewhere")
def the_html_page_has_another_base(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(b"<head>", b'<head><base href="https://mallory.test/">'))


@fault("page-malformed", "is on it twice")
def a_page_shows_a_file_twice(scene: Scene) -> None:
    scene.page(lambda page: page["files"].append({**page["files"][0], "requires-python": ">=99"}))


@fault("project-missing", "not on the HTML simple index", also=("page-extra",))
def only_the_html_index_leaves_a_project_out(scene: Scene) -> None:
    scene.html(lambda raw: raw.replace(b"acme-demo", b"acme-dem0"), "/simple/")


@fault("project-missing", "is not on the simple index")
def a_project_is_hidden(scene: Scene) -> None:
    scene.world.override["/simple/"] = b'{"projects":[{"name":"beta"}]}'


# --- bytes ---------------------------------------------------------------------------------------------------


@fault("metadata", "its entry says")
def a_metadata_file_gains_a_dependency(scene: Scene) -> None:
    path = f"/packages/acme-demo/{scene.wheel.filename}.metadata"
    scene.world.override[path] = b"Metadata-Version: 2.1\nRequires-Dist: evil\n"


@fault("metadata-missing", "is not served")
def a_metadata_file_is_withheld(scene: Scene) -> None:
    scene.world.override[f"/packages/acme-demo/{scene.wheel.filename}.metadata"] = None


@fault("artifact", "its entry says")
def an_artifact_is_swapped(scene: Scene) -> None:
    scene.world.packages[f"acme-demo/{scene.wheel.filename}"] = b"w" * len(scene.wheel.data)


@fault("artifact-missing", "is not served")
def an_artifact_is_withheld(scene: Scene) -> None:
    del scene.world.packages[f"acme-demo/{scene.wheel.filename}"]


@fault("blob-closed", "is not open")
def evidence_is_never_opened(scene: Scene) -> None:
    scene.world.verdict(scene.wheel, findings=b"what the scanner saw")
    scene.world.now += 9 * DAY
    scene.world.publish("gamma")
    scene.settle()


@fault("blob", "is served with SHA-256")
def evidence_is_swapped(scene: Scene) -> None:
    evidence_is_never_opened(scene)
    scene.world.blobs[hashlib.sha256(b"what the scanner saw").hexdigest()] = b"something milder"


# --- imports -------------------------------------------------------------------------------------------------

HISTORY = (("old-1.0.tar.gz", b"one"), ("old-2.0.tar.gz", b"two"), ("old-3.0.tar.gz", b"three"))


def imported_by_a_log_that(misbehaves: Callable[[list[bytes]], list[bytes]], scene: Scene) -> None:
    """The registry signs an import; the log publishes other leaves than its lines'."""
    honest = scene.world.copy()
    honest.import_files(*HISTORY, released=False)
    begin = len(scene.world.entries)
    opening, *lines = honest.entries[begin:]
    for raw in [opening, *misbehaves(lines)]:
        scene.world.append_raw(raw)
        result = rules.apply(scene.world.view, Entry.parse(raw))
        broken = isinstance(result, rules.Broken)
        scene.world.view.apply(rules.skip(scene.world.view) if broken else result)  # type: ignore[arg-type]
    scene.settle()


@fault("rule", "import-order: line 2 of import")
def a_line_of_an_import_is_left_out(scene: Scene) -> None:
    imported_by_a_log_that(lambda lines: [lines[1]], scene)


@fault("rule", "import-line: line 1 of import")
def two_lines_of_an_import_are_swapped(scene: Scene) -> None:
    def swapped(lines: list[bytes]) -> list[bytes]:
        first, second = (json.loads(raw) for raw in lines[:2])
        first["registry"], second["registry"] = (
            {**second["registry"], "import": first["registry"]["import"]},
            {**first["registry"], "import": second["registry"]["import"]},
        )
        return [encode_canonical(first)]

    imported_by_a_log_that(swapped, scene)


@fault("rule", "import-line: line 1 of import")
def a_line_of_an_import_gets_another_hash(scene: Scene) -> None:
    one = hashlib.sha256(b"one").hexdigest().encode()
    evil = hashlib.sha256(b"evil").hexdigest().encode()
    imported_by_a_log_that(lambda lines: [lines[0].replace(one, evil)], scene)


@fault("rule", "import-passed: line 1 says passed file-exists, the rules say None")
def a_line_of_an_import_is_passed_over_without_reason(scene: Scene) -> None:
    said = b'"passed":"file-exists"'
    imported_by_a_log_that(lambda lines: [lines[0].replace(b'"passed":null', said)], scene)


@fault("rule", "import-closed: a publish without a signature")
def nobody_signs_a_publish_and_no_import_is_open(scene: Scene) -> None:
    other = scene.world.copy()
    other.import_files(*HISTORY, released=False)
    scene.world.append_raw(other.entries[-1])
    scene.world.view.apply(rules.skip(scene.world.view))
    scene.settle()


@fault("blob", "is served with SHA-256")
def the_manifest_of_an_import_is_swapped(scene: Scene) -> None:
    scene.world.import_files(*HISTORY)
    (name,) = scene.world.blobs
    scene.world.blobs[name] = scene.world.blobs[name].replace(b"old-1", b"old-9")
    scene.world.now += 9 * DAY
    scene.world.publish("gamma")
    scene.settle()


def named_and_bound(
    scene: Scene, change: Callable[[list[Line]], list[Line]], nonce: bytes = ZERO_NONCE
) -> None:
    """The registry names one list and binds another by the chain: the log obeys the chain, readers see the list."""
    scene.world.import_files(*HISTORY, keeps=lambda lines: nonce + format_manifest(change(list(lines))))
    scene.settle()


@fault("manifest", "has 3 lines and the link")
def a_manifest_names_another_hash_than_was_logged(scene: Scene) -> None:
    named_and_bound(scene, lambda lines: [lines[0], replace(lines[1], sha256="ab" * 32), lines[2]])


@fault("manifest", "has 3 lines and the link")
def a_manifest_names_another_length_than_was_logged(scene: Scene) -> None:
    named_and_bound(scene, lambda lines: [*lines[:2], replace(lines[2], length=lines[2].length + 1)])


@fault("manifest", "has 2 lines and the link")
def a_manifest_lacks_a_line_that_was_logged(scene: Scene) -> None:
    named_and_bound(scene, lambda lines: [lines[0], lines[2]])


@fault("manifest", "has 3 lines and the link")
def two_lines_of_a_manifest_were_logged_the_other_way_round(scene: Scene) -> None:
    named_and_bound(scene, lambda lines: [lines[1], lines[0], lines[2]])


@fault("manifest", "has 4 lines and the link")
def a_manifest_has_a_line_that_was_not_logged(scene: Scene) -> None:
    more = Line("old", "4.0", "old-4.0.tar.gz", "cd" * 32, 4)
    named_and_bound(scene, lambda lines: [*lines, more])


@fault("manifest", "the link of no manifest (it is not public from the start)")
def a_manifest_is_not_public_from_the_start(scene: Scene) -> None:
    named_and_bound(scene, lambda lines: lines, nonce=b"\1" * 32)


@fault("manifest", "the link of no manifest (line 1: ")
def a_manifest_is_none(scene: Scene) -> None:
    scene.world.import_files(*HISTORY, keeps=lambda lines: ZERO_NONCE + b"no list\n")
    scene.settle()


@fault("manifest", "has 1 lines and the link")
def a_second_import_names_the_manifest_of_the_first(scene: Scene) -> None:
    """The blob was looked at before: each import is compared all the same."""
    scene.world.import_files(*HISTORY[:1])
    (raw,) = scene.world.blobs.values()
    scene.world.import_files(*HISTORY[1:], keeps=lambda lines: raw)
    scene.settle()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_manifest_is_compared_once(scene: Scene, interrupted: bool) -> None:
    """By the first audit that can read it; one that is not served is left for the next."""
    scene.world.import_files(*HISTORY)
    scene.settle()
    if interrupted:
        kept = dict(scene.world.blobs)
        scene.world.blobs.clear()
        report = scene.audit()
        assert report.exit_code == 0
        assert any(left.startswith("the manifest of import") for left in report.not_covered)
        scene.world.blobs |= kept
    assert scene.audit().covered["manifests of imports"] == 1
    assert "manifests of imports" not in scene.audit().covered


def test_an_honest_import_audits_clean(scene: Scene) -> None:
    """Recorded without a verdict, for as long as it likes; one listed later, too; and said in the report."""
    files = scene.world.import_files(*HISTORY)
    scene.world.now += 30 * DAY
    scene.world.verdict(files[0])
    scene.world.release()
    scene.settle()
    report = scene.audit()
    assert report.exit_code == 0, report.to_json()
    assert scene.world.targets.keys() >= {files[0].target}
    assert files[1].target not in scene.world.targets
    assert report.to_json()["covered"]["imported files, not signed"] == 3
    assert (report.to_json()["age"], report.to_json()["witnesses"]) == (0, ["w1"])


# --- the tests -----------------------------------------------------------------------------------------------

UNREAD = {"tile", "bundle", "fork"}  # after these the tree's bytes are not to be had: the position stays


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(scene: Scene, name: str) -> None:
    """One check fails, with its kind, party and values, and no other; what is false leaves evidence."""
    planted = FAULTS[name]
    if planted.audited_before:
        assert scene.audit().exit_code == 0
    before = scene.machine.registry.root
    planted.plant(scene)
    report = scene.audit()
    said = [found for found in report.findings if found.code == planted.code]
    assert said, report.to_json()
    assert {found.code for found in report.findings} == {planted.code} | planted.also, report.to_json()
    assert any(planted.words in found.message for found in said), said
    check = CHECKS[planted.code]
    assert {found.kind for found in said} == {check.kind} and all(found.party for found in said)
    assert report.exit_code == max(found.exit_code for found in report.findings)
    assert not report.to_json()["verified"]
    for found in report.findings:
        late = found.code == "applied-late"  # nothing is false, and yet it convinces others
        assert (found.exit_code == 7 or late) == (found.evidence is not None), found
        assert found.evidence is None or Path(found.evidence).is_file()
    if planted.code not in UNREAD:
        assert report.position == report.tree_size, "the position did not advance"
    else:
        assert report.not_covered
    assert scene.machine.home.registry(None).root == before, "the pin changed"


def test_every_check_has_a_planted_fault() -> None:
    """No check is claimed that nothing has ever made fail."""
    assert {planted.code for planted in FAULTS.values()} | PREDECESSOR_FAULTS == CHECKS.keys()
    assert len(FAULTS) >= 20


@pytest.mark.parametrize("name", ["history_is_rewritten", "the_timestamp_carries_another_history"])
def test_a_fork_that_an_audit_found_convinces_others(scene: Scene, name: str) -> None:
    """The evidence file proves itself to whoever trusts the root, and claims no less and no more."""
    if FAULTS[name].audited_before:
        scene.audit()
    root = Root.parse(scene.world.root)
    FAULTS[name].plant(scene)
    (found,) = (found for found in scene.audit().findings if found.code == FAULTS[name].code)
    assert found.evidence is not None
    checked = check(*parse(Path(found.evidence).read_bytes()), root)
    assert checked.proved and checked.claimed is EvidenceClass.SELF_PROVING
    assert "signed two histories" in checked.sentences[0]


def test_an_old_snapshot_need_not_be_served(scene: Scene) -> None:
    """Registries keep them for `tuf.retention` and no longer; roots and lists of changed bins for ever."""
    del scene.world.tuf["1.snapshot.json"]
    report = scene.audit()
    assert not list(report.findings) and report.exit_code == 0, report.to_json()


def test_an_honest_life_audits_clean_step_by_step(scene: Scene) -> None:
    """Yank, hold, clear, takedown, new files: each audit reads only what is new, and finds nothing."""
    world, wheel = scene.world, scene.wheel
    steps: list[Callable[[], object]] = [
        lambda: world.yank(wheel),
        lambda: world.decide("hold", wheel, "malware"),
        lambda: world.publish("gamma"),
        lambda: world.publish("acme-demo", "2.0", list_it=False),
        lambda: staged.require(world, "gamma", 1),
        lambda: world.publish("gamma", "2.0"),
        lambda: staged.approve(world, "gamma", "2.0"),
    ]
    position = scene.audit().position
    for step in steps:
        step()
        world.release()
        scene.settle()
        world.check()
        report = scene.audit()
        assert not report.findings, report.to_json()
        assert report.position == report.tree_size == position + report.covered["entries"]
        position = report.position
    again = scene.audit(from_start=True)
    assert not again.findings and again.covered["entries"] == position


def test_what_was_touched_just_now_may_be_either_way(scene: Scene) -> None:
    """A file cleared or withdrawn seconds ago is in motion, not at odds; a wrong hash never is."""
    pages = {name: dict(files) for name, files in scene.world.pages.items()}
    scene.world.decide("takedown", scene.wheel, "malware")
    scene.world.release()
    scene.world.pages = pages
    report = scene.audit()
    assert not report.findings and any("in motion" in what for what in report.covered)
    scene.world.pages["beta"] = dict.fromkeys(scene.world.pages["beta"], "cc" * 32)
    assert {found.code for found in scene.audit().findings} == {"page-hash"}


def test_a_page_ahead_of_the_log_is_looked_at_again(scene: Scene) -> None:
    """A file published while the audit runs is on the page first: the audit catches up before it judges."""
    other = scene.world.copy()

    def catch_up(seconds: float) -> None:
        scene.world.override.clear()
        scene.world.publish("acme-demo", "2.0")
        waited.append(seconds)

    waited: list[float] = []
    other.publish("acme-demo", "2.0")
    scene.world.override["/simple/acme-demo/"] = other._page("acme-demo")
    report = scene.audit(wait=catch_up)
    assert not report.findings and waited == [2.0], report.to_json()


def test_a_bad_entry_is_told_once_and_blocks_nothing(scene: Scene) -> None:
    """The position passes it; the next audit lists it as told, and its exit code is its own."""
    the_log_takes_what_is_no_entry(scene)
    first = scene.audit()
    assert [found.code for found in first.findings] == ["rule"] and first.exit_code == 7
    scene.world.publish("gamma")
    scene.settle()
    second = scene.audit()
    assert second.exit_code == 0 and [found.code for found in second.earlier] == ["rule"]
    assert second.position == second.tree_size > first.position


def test_an_audit_that_is_killed_goes_on_and_still_tells(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two transactions, or before its report was printed: nothing is lost, nothing read twice."""
    monkeypatch.setattr("countermark.audit_log.COMMIT", 4)
    the_log_takes_what_is_no_entry(scene)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.audit(say=die)
    with pytest.raises(KeyboardInterrupt):
        scene.audit(tell=die)
    report = scene.audit()
    assert [found.code for found in report.findings] == ["rule"] and report.covered["entries"] == 0
    assert report.position == report.tree_size


def test_without_tuf_the_log_is_still_audited(scene: Scene) -> None:
    """TUF's door is shut but for the trust file that the pinned root lists: the log is replayed, the rest is said."""
    scene.world.down = lambda path: path.startswith("/tuf/") and "trust.json" not in path
    report = scene.audit()
    assert report.exit_code == 3 and report.position == report.tree_size
    assert any("no current timestamp" in what for what in report.not_covered)
    scene.world.down = lambda path: True
    assert scene.audit().exit_code == 3


GARBAGE = (b"null", b'{"signed":[]}', b"[" * 5000)
ODD_FILE = b'{"name":"acme-demo","files":[{"filename":1,"hashes":{"sha256":2},"size":Infinity,"url":"//["}]}'


def test_no_answer_makes_an_audit_fail_itself(scene: Scene) -> None:
    """Whatever any door answers, the audit ends in a report that says so, and never in an error of its own."""
    world = scene.world
    asked = ["/log/checkpoint", *(f"/tuf/{name}" for name in world.tuf), "/simple/", "/simple/acme-demo/"]
    asked += [f"/log/tile/{level}/000.p/{world.log_size}" for level in ("0", "entries")]
    # Older bins and tiles are not read, nor are bins whose bytes were read under another name.
    assert world.bins_root
    read = {f"/tuf/{scene.bin_name()}", f"/tuf/bins/{world.bins_root.hex()}"}
    unread = {path for path in asked if "bins" in path} - read
    for path in asked:
        for raw in (*GARBAGE, *([ODD_FILE] if path.startswith("/simple/") else [])):
            world.override = {path: raw}
            report = scene.audit(from_start=True)
            assert report.exit_code in (3, 5, 7) or path in unread, (path, raw[:40])
    world.override = {}
    assert scene.audit(from_start=True).exit_code == 0, "something of the garbage was kept"
