"""Every resource a client reads, mutated: refused with blame where it belongs, or harmless; and nothing else changed.

A client does something (verify, audit, the proxy, a bundle); what it asked for is noted. Then each answer is altered
in every way of tests/mutations.py, and the same is done again. It must end in one of two ways:

    refused    an error that blames the evidence or the network, never a bug of ours (exit 1), never our user; the
               machine's files are to the byte what they were, and the registry still verifies for the machine
    harmless   the very same result as from the unaltered answer; only for the reasons listed in HARMLESS

`make test` takes a sample at every door, `make test-full` all of them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from countermark.audit import audit
from countermark.bundling import make
from countermark.clientpolicy import ClientPolicy, LogOnly, Mode, Policies
from countermark.errors import CountermarkError
from countermark.filestore import FileStore
from countermark.logonly import verify_log_only
from countermark.offers import REFUSED
from countermark.offline import verify_bundles
from countermark.proxy import Proxy
from countermark.serving import Request, Stream
from countermark.simplepage import parse_links
from tests.elsewhere import Elsewhere, held
from tests.machine import Machine, artifact
from tests.mutations import Mutant, mutants, sampled
from tests.simulator import HTML, Published, World

POLICIES = Policies(local=ClientPolicy(mode=Mode.ENFORCE))
DAY = 86400
# What a refusal may say: evidence is false, or it could not be had. Other codes need a reason.
EVIDENCE, NETWORK = 7, 3


@dataclass(frozen=True)
class Refusal:
    """It was refused: by which exit code, and in which words."""

    code: int
    words: str


class Scene:
    """A registry that moved on since a machine last saw it, that machine, and two other registries' files."""

    def __init__(self, folder: Path) -> None:
        self.world = World()
        self.wheel = self.world.publish("acme-demo")
        self.world.publish("beta", signed=False)
        self.machine = Machine(folder / "home", self.world)
        self.store = folder / "store"
        self.corp = Elsewhere(self.world, "corp")
        self.elsewhere = [self.corp.publish()]
        self.world.release()
        self.machine.accept(self.wheel)
        self.past = self.world.copy()
        self.world.now += 600
        self.second = self.world.publish("acme-demo", "2.0")
        self.world.yank(self.wheel)
        self.held = self.world.publish("acme-demo", "3.0", list_it=False)
        self.world.decide("hold", self.held, "malware")
        self.elsewhere.append(self.corp.publish(version="2.0"))
        self.world.release()
        self.world.now += 300
        self.world.heartbeat()
        self.world.check()
        self.stranger = World(keys="mallory", now=self.world.now)
        self.stranger.publish("acme-demo")
        self.stranger.publish("beta", signed=False)
        self.kept = self._files()
        self.count = 0

    # --- what is on the machine -------------------------------------------------------------------------
    def _files(self) -> dict[Path, bytes]:
        home, store = self.machine.home.path, self.store
        paths = [path for top in (home, store) for path in top.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in paths if path.name != "lock"}

    def changed(self) -> list[str]:
        """What differs from the moment everything began; evidence is what a refusal may leave behind."""
        now = self._files()
        paths = sorted(now.keys() | self.kept.keys())
        return [
            str(path)
            for path in paths
            if "evidence" not in path.parts and now.get(path) != self.kept.get(path)
        ]

    def restore(self) -> None:
        """The machine as it was."""
        for path in self._files().keys() - self.kept.keys():
            path.unlink()
        for path, raw in self.kept.items():
            if not path.exists() or path.read_bytes() != raw:
                path.write_bytes(raw)

    # --- what is done -----------------------------------------------------------------------------------
    def do(self, act: Callable[[Scene], Any]) -> Any:
        """The result in comparable form, or the refusal. Anything but our own errors is a bug and is raised."""
        try:
            return act(self)
        except CountermarkError as error:
            return Refusal(error.exit_code, str(error))

    def others(self, path: str, asked: list[str]) -> Iterator[tuple[str, bytes]]:
        """Resources that a liar has at hand: the past's, a stranger's, and what belongs elsewhere."""
        for name, world in (("the past", self.past), ("a stranger", self.stranger)):
            found = world._resource(path)
            if found is not None:
                yield f"{path} of {name}", found
        for other in asked:
            found = self.world._resource(other)
            if other != path and other.split("/")[1] == path.split("/")[1] and found is not None:
                yield other, found


def verifying(scene: Scene) -> Any:
    """Four files: a listed one, a yanked one, one that a moderator holds, and one that nobody published."""
    unknown = artifact(Published("acme-demo", "9.9", "acme_demo-9.9-py3-none-any.whl", b"?", 0))
    files = [scene.second, scene.wheel, scene.held, unknown]
    report = scene.machine.verify(*files, local=Mode.ENFORCE).to_json()
    for shown in report["artifacts"]:
        shown.pop("hint", None)
    worst = [each for each in report["artifacts"] if each["exit_code"] in (3, 7)]
    return Refusal(worst[0]["exit_code"], str(worst[0])) if worst else report


def checking_the_log(scene: Scene) -> Any:
    """Two files that corp serves itself, against the log alone."""
    artifacts = [held(file, "corp") for file in scene.elsewhere]
    report = verify_log_only(
        artifacts,
        "corp",
        scene.machine.registry,
        scene.world,
        now=scene.world.now,
        policies=Policies(local=ClientPolicy(log_only=(LogOnly("corp"),))),
    ).to_json()
    worst = [each for each in report["artifacts"] if each["exit_code"]]
    return Refusal(worst[0]["exit_code"], str(worst[0])) if worst else report


def bundling(scene: Scene) -> Any:
    """A bundle of the newest file, verified at once where there is no network."""
    wanted = artifact(scene.second)
    raw = make([wanted], scene.machine.registry, scene.world, now=scene.world.now, policies=POLICIES)
    report = verify_bundles(
        [(wanted, raw[wanted.filename])],
        scene.machine.registry,
        now=scene.world.now,
        max_age=DAY,
        policies=POLICIES,
    )
    return report.to_json()


def proxying(scene: Scene) -> Any:
    """A page in both forms, a file and its metadata, as an installer asks for them."""
    proxy = Proxy(
        scene.machine.registry,
        scene.world,
        FileStore(scene.store),
        policies=POLICIES,
        clock=lambda: scene.world.now,
        say=lambda text: None,
    )
    name = scene.second.filename
    answers = []
    for path in ("/simple/acme-demo/", f"/packages/acme-demo/{name}.metadata", f"/packages/acme-demo/{name}"):
        answer = proxy.answer(Request("GET", path, {"accept": "application/vnd.pypi.simple.v1+json"}))
        assert answer.status in (200, 403, 404, 409), answer
        body = b"".join(answer.body.pieces) if isinstance(answer.body, Stream) else answer.body
        if answer.status != 200:
            code = 7 if answer.status == 409 else 3
            if answer.status != 404:
                problem = json.loads(body)
                code = int(problem["code"].removeprefix("exit-"))
            return Refusal(code, body.decode())
        if path.startswith("/simple/"):  # what is false about a file keeps it off the page, with its reason
            judged = proxy.judged("acme-demo")
            assert judged is not None
            if judged.error is not None:
                return Refusal(judged.error.exit_code, str(judged.error))
            for refused in judged.refused():
                if refused.exit_code in (EVIDENCE, NETWORK):
                    return Refusal(refused.exit_code, str(refused.error))
            # Names that stand for what is refused are hints, as the API's words that they are made of (ADR 40).
            files = [file for file in json.loads(body)["files"] if REFUSED not in file["filename"]]
            answers.append(sorted(map(str, files)))
        else:
            answers.append(body)
    return answers


def auditing(scene: Scene) -> Any:
    """Everything, from the first entry, bytes of files included."""
    report = audit(
        scene.machine.registry, scene.world, now=scene.world.now, files=True, from_start=True
    ).to_json()
    if report["exit_code"]:
        return Refusal(report["exit_code"], "; ".join(each["message"] for each in report["findings"]))
    return report


# --- what may differ and change nothing ------------------------------------------------------------------------


def _same_signed(path: str, honest: bytes, mutant: bytes) -> bool:
    """TUF signs the canonical form of `signed`: spelling, order and what stands beside the signatures are free."""
    if not path.startswith("/tuf/") or not path.endswith(".json"):
        return False
    try:
        ours, theirs = json.loads(honest), json.loads(mutant)
        return bool(ours["signed"] == theirs["signed"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _only_a_hint(path: str, honest: bytes, mutant: bytes) -> bool:
    """The registry's API and pages are believed nowhere: they say where in the log to look, and why not."""
    return path.startswith(("/api/", "/simple/"))


def _same_page(path: str, honest: bytes, mutant: bytes) -> bool:
    """Pages leave the order of files and members we don't read free, and a file without `yanked` is none."""
    if not path.startswith("/simple/"):
        return False
    ours, theirs = (
        {"files": parse_links(raw)} if path.endswith(HTML) else json.loads(raw) for raw in (honest, mutant)
    )
    return _facts(ours) == _facts(theirs)


def _facts(page: dict[str, Any]) -> Any:
    facts = [(item["name"],) for item in page.get("projects", [])]
    for file in page.get("files", []):
        read = {name: file.get(name) for name in ("hashes", "size", "url", "core-metadata", "_countermark")}
        told = {name: value for name, value in read.items() if not isinstance(value, dict)}
        told |= {
            f"{name}/{inner}": value[inner]
            for name, value in read.items()
            if isinstance(value, dict)
            for inner in ("sha256", "index", "leaf_hash")
            if inner in value
        }
        facts.append((file["filename"], bool(file.get("yanked")), sorted(told.items())))
    return sorted(facts)


def _line_twice(path: str, honest: bytes, mutant: bytes) -> bool:
    """A signature line that is there twice counts once."""
    return path == "/log/checkpoint" and set(honest.split(b"\n")) == set(mutant.split(b"\n"))


def _timestamp_seen_here(path: str, honest: bytes, mutant: bytes) -> bool:
    """The log alone is judged at its newest checkpoint: an unexpired timestamp of before names the same log keys."""
    if path != "/tuf/timestamp.json":
        return False
    ours, theirs = (json.loads(raw)["signed"]["version"] for raw in (honest, mutant))
    return bool(theirs < ours)


def _what_counts(result: Any, path: str) -> Any:
    """A result without its words; of what only a hint leads to, that it was refused and not how it was said."""
    if not isinstance(result, dict) or "artifacts" not in result:
        return result
    hint = path.startswith(("/api/", "/simple/"))
    shown = []
    for each in result["artifacts"]:
        code = each["exit_code"]
        shown.append(
            (each["filename"], code if not hint else code in (5, 6), each.get("index"), each.get("signed_by"))
        )
    return {**result, "artifacts": shown, "exit_code": result["exit_code"] if not hint else None}


HARMLESS = (_same_signed, _only_a_hint)


@dataclass(frozen=True)
class Doing:
    """Something a client does; what it may be refused with, and whether a refusal leaves its files alone."""

    act: Callable[[Scene], Any]
    codes: frozenset[int] = frozenset({EVIDENCE, NETWORK})
    keeps: bool = True
    samples: int = 30
    harmless: tuple[Callable[[str, bytes, bytes], bool], ...] = HARMLESS


DOINGS = {
    "verify": Doing(verifying, samples=20),
    "log-only": Doing(checking_the_log, samples=20, harmless=(*HARMLESS, _line_twice, _timestamp_seen_here)),
    "bundle": Doing(bundling),
    "proxy": Doing(proxying),
    # An auditor's memory goes on past whatever is authentic, and its findings say what is missing (5).
    "audit": Doing(
        auditing,
        frozenset({EVIDENCE, NETWORK, 5}),
        keeps=False,
        samples=10,
        harmless=(_same_signed, _same_page, _line_twice),
    ),
}


def _is_kept_rightly(scene: Scene, path: Path, asked: bytes) -> bool:
    """Whether it is another file of the registry's, unaltered, under its hash: metadata comes before its wheel."""
    if scene.store not in path.parents or not path.is_file():
        return False
    kept = path.read_bytes()
    others = [raw for raw in scene.world.packages.values() if raw != asked]
    return kept in others and path.name == hashlib.sha256(kept).hexdigest()


def _judged(scene: Scene, doing: Doing, path: str, mutant: Mutant, honest: Any) -> str | None:
    """Do it with one answer altered; what is wrong with what came of it, in words."""
    raw = scene.world._resource(path)
    assert raw is not None
    scene.world.override = {path: mutant.raw}
    try:
        found = scene.do(doing.act)
    finally:
        scene.world.override = {}
    changed = scene.changed()
    if isinstance(found, Refusal):
        if found.code not in doing.codes:
            return f"blames the wrong one: exit {found.code}: {found.words[:300]}"
        # What nobody vouches for (bytes, hints) was asked for in a true view: that stays, the bytes don't.
        unsigned = path.startswith(("/packages/", "/simple/", "/api/"))
        left = [name for name in changed if not unsigned or str(scene.store) in name]
        left = [name for name in left if not _is_kept_rightly(scene, Path(name), raw)]
        if doing.keeps and left:
            return f"was refused ({found.words[:200]}) and left behind {left}"
    else:
        if _what_counts(found, path) != _what_counts(honest, path):
            return f"changed the result: {str(found)[:600]}"
        if not any(reason(path, raw, mutant.raw) for reason in doing.harmless):
            return "passed unnoticed"
    scene.count += 1
    # Whatever was learned, the true registry must still hold on this machine. (An audit always learns: every 8th.)
    if changed and (doing.keeps or scene.count % 8 == 0):
        again = scene.do(doing.act)
        if _what_counts(again, path) != _what_counts(honest, path):
            return f"spoiled the machine for the true registry: {str(again)[:300]}"
    scene.restore()
    return None


def _run(folder: Path, name: str, chosen: Callable[[str, bytes, list[tuple[str, bytes]]], Any]) -> int:
    doing, scene = DOINGS[name], Scene(folder)
    scene.world.asked.clear()
    honest = scene.do(doing.act)
    assert not isinstance(honest, Refusal), honest
    asked = sorted({path for path in scene.world.asked if scene.world._resource(path) is not None})
    scene.restore()
    faults, count = [], 0
    for path in asked:
        raw = scene.world._resource(path)
        assert raw is not None
        for mutant in chosen(path, raw, list(scene.others(path, asked))):
            count += 1
            fault = _judged(scene, doing, path, mutant, honest)
            if fault is not None:
                faults.append(f"{path}: {mutant}: {fault}")
                scene.restore()
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults[:40])
    # The whole world, once more: the registry is as it was, and the machine takes it as before.
    scene.world.check()
    assert _what_counts(scene.do(doing.act), "") == _what_counts(honest, "")
    return count


@pytest.mark.parametrize("name", DOINGS)
def test_a_sample_of_lies_at_every_door(tmp_path: Path, name: str) -> None:
    """Some of many sorts at every resource: refused with the right blame, or harmless; nothing else changed."""

    def chosen(path: str, raw: bytes, others: list[tuple[str, bytes]]) -> list[Mutant]:
        seed = f"{name} {path}"
        found = sampled(raw, others, count=DOINGS[name].samples, seed=seed)
        return random.Random(seed).sample(found, min(len(found), DOINGS[name].samples))

    assert _run(tmp_path, name, chosen) > 90


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)  # minutes of one core
@pytest.mark.parametrize("name", DOINGS)
def test_every_lie_at_every_door(tmp_path: Path, name: str) -> None:
    """Every byte that means something by its place, every member, every cut and every swap at every resource."""
    assert _run(tmp_path, name, lambda path, raw, others: mutants(raw, others)) > 5_000
