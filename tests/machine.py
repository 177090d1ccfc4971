"""Somebody's computer in a test: a home folder, a pinned root, and what it does with a simulated registry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.errors import CountermarkError
from countermark.pins import Home, Registry
from countermark.verified import Artifact, Report
from countermark.verify import verify
from tests.simulator import Published, World


class Machine:
    """One home folder that trusts one registry's root."""

    def __init__(self, folder: Path, world: World, *, root: bytes | None = None) -> None:
        self.home = Home(folder)
        self.world = world
        self.registry: Registry = self.home.add(world.base, root or world.root)

    def verify(
        self, *files: Published | Artifact, world: World | None = None, local: Mode = Mode.OBSERVE
    ) -> Report:
        """Verify files as they were published (or as claimed) against the registry as it answers now."""
        world = world or self.world
        artifacts = [file if isinstance(file, Artifact) else artifact(file) for file in files]
        policies = Policies(local=ClientPolicy(mode=local))
        return verify(artifacts, self.registry, world, now=world.now, policies=policies)

    def accept(self, *files: Published | Artifact, world: World | None = None) -> Report:
        """Expect that everything is verified."""
        report = self.verify(*files, world=world)
        assert report.exit_code == 0, report.to_json()
        assert report.to_json()["verified"], report.to_json()
        return report

    def refuse(
        self, code: int, words: str, *files: Published | Artifact, world: World | None = None
    ) -> CountermarkError:
        """Expect this refusal in these words, and that nothing but an evidence file was written."""
        before, evidence = self.snapshot(), self.evidence()
        try:
            report = self.verify(*files, world=world)
        except CountermarkError as found:
            error = found
        else:
            failed = [outcome for outcome in report.outcomes if outcome.exit_code]
            assert failed, report.to_json()
            error = failed[0].error
            assert report.exit_code == error.exit_code
        assert error.exit_code == code, f"{error.exit_code}: {error}"
        assert words in str(error), str(error)
        after = self.snapshot()
        if code == 7:
            assert self.evidence() and len(self.evidence()) >= len(evidence), "no evidence file was written"
        if code in (5, 6):  # the view was true: what it learned is kept, but nothing counts as verified
            before, after = (
                {k: v for k, v in s.items() if k.endswith("verified.txt")} for s in (before, after)
            )
        assert after == before, "a refusal changed something"
        return error

    def snapshot(self) -> dict[str, str]:
        """Every file of the home but evidence and lock, by digest."""
        files = sorted(path for path in self.home.path.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.home.path)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.parent.name != "evidence" and path.name != "lock"
        }

    def evidence(self) -> list[Path]:
        folder = self.registry.folder / "evidence"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @property
    def cache(self) -> Path:
        return self.registry.folder / "tuf"


def artifact(file: Published, *, data: bytes | None = None) -> Artifact:
    """The file as an installer holds it; `data` are other bytes under its name."""
    held = file.data if data is None else data
    return Artifact(file.project, file.version, file.filename, hashlib.sha256(held).hexdigest(), len(held))
