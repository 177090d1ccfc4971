"""The insider swaps stored wheel, index and database, over real processes: every route of the client refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.client.cli.test_commands import wheel
from tests.world import installers
from tests.world.insider import PROJECT, TAMPERED, WHEEL, evidence, quiet, remembered, swap, unchanged
from tests.world.world import World, fresh

# Python reads it before anything else: whoever starts this environment's Python is written down.
RECORDER = (
    "import sys\nwith open({file!r}, 'a', encoding='utf-8') as log:\n    print(*sys.orig_argv, file=log)\n"
)


@dataclass
class Story:
    """A trial registry whose one wheel was swapped after bob had verified it."""

    world: World
    honest: Path
    hashes: tuple[str, str]
    python: Path
    app: Path
    starts: Path  # every start of bob's installers, one a line

    def recorded(self, path: str) -> str:
        """A search path on which uv is written down before it runs."""
        folder = self.world.root / "recorded"
        folder.mkdir(exist_ok=True)
        script = folder / "uv"
        script.write_text(
            f'#!/bin/sh\necho "uv $*" >> "{self.starts}"\nexec "{shutil.which("uv", path=path)}" "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
        return f"{folder}:{path}"

    def started(self) -> list[str]:
        """Who has started since this was last asked."""
        lines = self.starts.read_text("utf-8").splitlines() if self.starts.exists() else []
        self.starts.unlink(missing_ok=True)
        return [line for line in lines if line.startswith("uv ") or " -m pip " in line]

    def changed_nothing(self, before: dict[str, str]) -> None:
        """Bob's client keeps what it kept; the true metadata, by the hash that the log has, may have come to it."""
        now = remembered(self.world, "bob")
        assert before.items() <= now.items()
        assert {now[path] for path in now.keys() - before.keys()} <= {metadata_sha256(self.honest)}

    def refused(self, *command: str | Path, cwd: Path | None = None) -> None:
        """Exit 7 with both hashes and the entry, evidence of it, and no file changed on either machine."""
        for path in evidence(self.world, "bob"):
            path.unlink()  # it is named by its content: the same finding would be the same file
        before = remembered(self.world, "bob")
        files = {path: path.read_bytes() for path in self.app.iterdir() if path.is_file()}
        with unchanged(self.world):
            done = installers.refused(
                self.world, self.hashes, *command, cwd=cwd, PATH=self.recorded(self.world.env()["PATH"])
            )
        (written,) = evidence(self.world, "bob")
        assert written.name in done.err and all(
            digest in written.read_text("utf-8") for digest in self.hashes
        )
        self.changed_nothing(before)
        assert {path: path.read_bytes() for path in self.app.iterdir() if path.is_file()} == files


def metadata_sha256(path: Path) -> str:
    """Of the METADATA in a wheel."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return hashlib.sha256(archive.read(name)).hexdigest()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.up("--trial", "--origin", world.origin)
        words = world.words(world.data / "ceremony")
        world.login("alice", words)
        honest = wheel(world.root, PROJECT, "1.0.0").rename(world.root / WHEEL)
        world.run("countermark", "publish", "--yes", honest)
        quiet(world)
        world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
        world.run("countermark", "verify", honest, home="bob")
        hashes = swap(world, honest, world.root / "swapped")
        python, app = world.machine("pip-bob"), installers.application(world)
        installers.fooled_uv(world, app, hashes[1])  # whose lock pins the swapped wheel
        shutil.rmtree(app / ".venv")
        installers.pinned(app, hashes[1])
        starts = world.root / "starts"
        (packages,) = (world.root / "pip-bob" / "lib").glob("python*/site-packages")
        (packages / "sitecustomize.py").write_text(RECORDER.format(file=str(starts)), encoding="utf-8")
        yield Story(world, honest, hashes, python, app, starts)


@pytest.mark.parametrize("route", ["uv sync --frozen", "pip install --require-hashes -r requirements.txt"])
def test_where_the_bytes_are_pinned_no_installer_starts(story: Story, route: str) -> None:
    """A lock and requirements made after the swap pin the swapped wheel: refused before uv and pip start."""
    command = installers.locked_routes(story.python, story.app / "requirements.txt")[route]
    story.started()
    story.refused("run", "--", *command, cwd=story.app)
    assert story.started() == []
    assert not (story.app / ".venv").exists() and not installers.installed(story.world, story.python)
    assert len(story.started()) == 1  # pip list: a start is written down


def test_by_name_the_reason_stands_in_the_installers_own_words(story: Story) -> None:
    """Nothing pins the bytes: pip and uv run, are given none of them, and say why; so do we."""
    said = f"{WHEEL} is sha256:HASH, entry #N of demo.test/registry says sha256:HASH"
    short = said.replace("HASH", "HASH...")
    before = remembered(story.world, "bob")
    done = installers.pip(story.world, story.python, PROJECT, expect=7)
    text = installers.essential(done.said)
    assert f"countermark: refused: {said}" in text
    assert 'countermark: hint: evidence is in "FILE"' in text
    assert f"409 Client Error: {short} exit-7 URL/h/exit-7 for url: " in text
    assert text.splitlines()[-1] == "countermark: exit code 7 is countermark's"
    assert all(digest in done.err for digest in story.hashes)

    done = installers.uv(story.world, story.python, PROJECT, expect=7)
    text = " ".join(installers.essential(done.err).split())
    assert f"Server message: Evidence false, {said}" in text
    assert f"HTTP status client error (409 {short} exit-7 URL/h/exit-7)" in text
    assert not installers.installed(story.world, story.python)
    result = json.loads((story.world.root / "run.json").read_text("utf-8"))
    assert (result["exit_code"], result["exit_code_of"], result["verified"]) == (7, "countermark", False)
    story.changed_nothing(before)

    story.started()
    story.refused("run", "--", story.python, "-m", "pip", "install", "--no-input", PROJECT)
    assert any(" -m pip install " in line for line in story.started())
    assert not installers.installed(story.world, story.python)


def test_a_downloaded_file_is_refused_and_the_true_one_still_verifies(story: Story) -> None:
    """The registry hands out the swapped wheel; what the publisher signed is good wherever it comes from."""
    folder = story.world.root / "downloads"
    story.world.run(
        story.python, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder,
        "-i", f"{story.world.url}/simple/", PROJECT,
    )  # fmt: skip
    story.refused("verify", folder / WHEEL)
    story.world.run("countermark", "verify", story.honest, home="bob")


def test_plain_pip_is_fooled(story: Story) -> None:
    """Who verifies nothing notices nothing; so was plain uv, before the stories above began."""
    assert TAMPERED in installers.fooled_pip(story.world, story.world.machine("pip-plain"))
