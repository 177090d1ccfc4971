"""Every exit code by every way to it: files, a lock, and `run`; and of several failures the worst."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from countermark import errors, run
from countermark.bins import bin_number
from tests import archives
from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)
from tests.sariflog import checked
from tests.simulator import BIT_LENGTH

AWAY = 0  # the bin that cannot be fetched
DAY = 86_400


class Bench:
    """A desk with files of every fate, each of which is a wheel on disk and a line of a lock."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
        self.desk, self._patch = desk, monkeypatch
        self._names = (f"p{number}" for number in itertools.count())
        self.started: list[Sequence[str]] = []
        self.child = 0
        monkeypatch.setattr(run, "_start", self._start)

    def _start(self, command: Sequence[str], _: Any) -> int:
        self.started.append(command)
        return self.child

    def named(self, *, away: bool = False) -> str:
        """A project whose wheel's bin is the one that is away, or is not."""
        for name in self._names:
            if (bin_number(f"files/{name}/{name}-1.0-py3-none-any.whl", BIT_LENGTH) == AWAY) is away:
                return name
        raise AssertionError

    def file(self, fate: str) -> tuple[Path, str]:
        """A file that verification must end with this for: the wheel here, and the line that pins it."""
        name, world = self.named(away=fate == "away"), self.desk.world
        data = archives.wheel(name, "1.0", {f"{name}.py": fate.encode()})
        if fate != "unknown":
            published = world.publish(name, data=data)
            if fate == "held":
                world.decide("hold", published, "malware")
                world.heartbeat()
        if fate == "swapped":
            data = archives.wheel(name, "1.0", {f"{name}.py": b"other"})
        if fate == "away":
            world.down = lambda path: path.endswith(f".bins-{AWAY}.json")
        path = self.desk.folder / f"{name}-1.0-py3-none-any.whl"
        path.write_bytes(data)
        return path, f"{name}==1.0 --hash=sha256:{hashlib.sha256(data).hexdigest()}\n"

    def expect(self, way: str, code: int, fates: Sequence[str]) -> Any:
        """Verify these in one command, which ends with this code; its JSON document."""
        files = [self.file(fate) for fate in fates]
        lock = self.desk.folder / "requirements.txt"
        lock.write_text("".join(line for _, line in files))
        return self.command(way, code, [path for path, _ in files], lock)

    def command(self, way: str, code: int, paths: Sequence[Path], lock: Path) -> Any:
        if way == "files":
            return self.desk.json("verify", *paths, expect=code)
        if way == "lock":
            return self.desk.json("verify", lock, expect=code)
        result = self.desk.folder / "result.json"
        result.unlink(missing_ok=True)
        told = ("run", "--json", result, "--", "pip", "install", "--require-hashes", "-r", lock)
        self.desk.run(*told, expect=code)
        return json.loads(result.read_text())


@pytest.fixture
def bench(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Bench:  # noqa: F811
    return Bench(desk, monkeypatch)


WAYS = ["files", "lock", "run"]
FATES = {"good": 0, "away": 3, "unknown": 5, "held": 6, "swapped": 7}
SEVERAL = [
    ["good", "away"],
    ["away", "unknown"],
    ["unknown", "held", "good"],
    ["held", "swapped"],
    ["swapped", "held", "unknown", "away", "good"],
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fates", [[fate] for fate in FATES] + SEVERAL, ids="+".join)
def test_a_command_ends_with_the_worst_of_its_files(bench: Bench, way: str, fates: list[str]) -> None:
    """The number in the shell, in the document and of each artifact; the child is started for nought alone."""
    worst = max(FATES[fate] for fate in fates)
    document = bench.expect(way, worst, fates)
    assert document["exit_code"] == worst and document["verified"] is (worst == 0)
    assert sorted(each["exit_code"] for each in document["artifacts"]) == sorted(FATES[f] for f in fates)
    assert len(bench.started) == (way == "run" and worst == 0)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_too_old_to_judge_ends_with_4(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Nothing newer was signed for ten days; nothing is said of any file."""
    path, line = bench.file("good")
    (lock := bench.desk.folder / "requirements.txt").write_text(line)
    then = time.time()
    monkeypatch.setattr(time, "time", lambda: then + 10 * DAY)
    document = bench.command(way, 4, [path], lock)
    assert document["exit_code"] == 4 and "expired" in document["error"] and not bench.started


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [1, 2, 3, 5])
def test_what_ends_a_command_before_any_file_is_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, way: str, code: int
) -> None:
    """A bug of ours, a file that is not there, a registry that is away, and one that nobody pinned."""
    path, line = bench.file("good")
    (lock := bench.desk.folder / "requirements.txt").write_text(line)
    if code == 1:
        bench.desk.world.get = None  # type: ignore[assignment,method-assign]
    if code == 2:
        path, lock = path.with_name("not_there-1.0-py3-none-any.whl"), lock.with_name("not-there.txt")
    if code == 3:
        bench.desk.world.down = lambda path: True
    if code == 5:
        monkeypatch.setenv("COUNTERMARK_REGISTRY", "https://elsewhere.test")
    told = {"files": ("verify", path), "lock": ("verify", lock)}.get(
        way, ("run", "--", "pip", "install", "--require-hashes", "-r", lock)
    )
    bench.desk.run(*told, expect=code)
    assert "countermark: " in bench.desk.err and not bench.started


@pytest.mark.parametrize(("child", "code"), [(0, 0), (1, 1), (3, 3), (7, 7), (130, 130)])
def test_run_ends_as_its_child_did(bench: Bench, child: int, code: int) -> None:
    bench.child = child
    document = bench.expect("run", code, ["good"])
    assert (document["exit_code"], document["exit_code_of"]) == (code, "pip")


def test_of_any_codes_the_worst_is_the_result() -> None:
    """Every set of them: a bug, then wrong usage, then 7 > 6 > 5 > 4 > 3, and nought only alone."""
    order = [1, 2, 7, 6, 5, 4, 3, 0]
    for count in range(1, len(order) + 1):
        for codes in itertools.permutations(order, min(count, 3)):
            assert errors.worst(codes) == next(code for code in order if code in codes)
    assert errors.worst([]) == 0


@pytest.mark.parametrize("name", ["acme-2.0.tar.bz2", "acme-2.0.tgz", "acme-2.0.tar.XZ", "acme-2.0.ZIP"])
def test_a_folder_with_what_no_registry_lists_is_not_verified(bench: Bench, name: str) -> None:
    """`--find-links` takes archives of more kinds than are uploaded; passed over here, one would be installed."""
    folder = bench.desk.folder / "found"
    folder.mkdir()
    path, _ = bench.file("good")
    path.rename(folder / path.name)
    bench.desk.run("verify", folder)
    (folder / name).write_bytes(b"evil")
    bench.desk.run("verify", folder, expect=2)
    assert name in bench.desk.err


def test_reports_of_a_lock_point_at_its_lines(bench: Bench) -> None:
    """The command gives both files of the same result, at the lines of the pins."""
    lines = [bench.file(fate)[1] for fate in ("good", "held", "swapped")]
    (bench.desk.folder / "requirements.txt").write_text("# pins\n" + "".join(lines))
    bench.desk.run("verify", "requirements.txt", "--sarif", "found.sarif", expect=7)
    (log,) = checked((bench.desk.folder / "found.sarif").read_bytes())["runs"]
    places = [each["locations"][0]["physicalLocation"] for each in log["results"]]
    assert [(each["artifactLocation"]["uri"], each["region"]["startLine"]) for each in places] == [
        ("requirements.txt", 3), ("requirements.txt", 4),
    ]  # fmt: skip
