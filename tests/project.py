"""A folder with a lock, on a machine that trusts a simulated registry, and an installer that only notes its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from countermark import run
from countermark.clientpolicy import ClientPolicy, Mode, Policies
from countermark.errors import CountermarkError
from countermark.filestore import FileStore
from countermark.installers import plan
from countermark.proxy import Proxy
from tests.machine import Machine
from tests.simulator import Published, World


class Project:
    """A folder with a lock, on a machine, with a child that only writes down that it ran."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder / "app", world
        self.folder.mkdir()
        (self.folder / "pyproject.toml").write_text("[project]\n")
        self.machine = Machine(folder / "home", world)
        self.started: list[tuple[list[str], dict[str, str]]] = []
        self.said: list[str] = []
        self.child_code = 0
        self.during: Callable[[], object] = lambda: None

    def uv_lock(self, *files: Published, sha256: str | None = None, extra: str = "") -> Path:
        text = "version = 1\n"
        for file in files:
            text += (
                f'[[package]]\nname = "{file.project}"\nversion = "{file.version}"\n'
                'source = { registry = "https://registry.test/simple/" }\n'
                f'wheels = [{{ url = "https://registry.test/packages/{file.project}/{file.filename}", '
                f'hash = "sha256:{sha256 or file.sha256}" }}]\n'
            )
        (self.folder / "uv.lock").write_text(text + extra)
        return self.folder / "uv.lock"

    def poetry_lock(self, *files: Published, sha256: str | None = None, settings: str = "") -> Path:
        """A project of poetry whose one source is the registry, and its lock."""
        source = f'[[tool.poetry.source]]\nname = "countermark"\nurl = "{self.world.base}/simple/"\n'
        (self.folder / "pyproject.toml").write_text('[project]\nname = "app"\n' + source + settings)
        text = ""
        for file in files:
            text += (
                f'[[package]]\nname = "{file.project}"\nversion = "{file.version}"\n'
                f'files = [{{ file = "{file.filename}", hash = "sha256:{sha256 or file.sha256}" }}]\n'
            )
        (self.folder / "poetry.lock").write_text(text + '[metadata]\nlock-version = "2.1"\n')
        return self.folder / "poetry.lock"

    def requirements(self, *files: Published, sha256: str | None = None) -> Path:
        lines = [f"{f.project}=={f.version} --hash=sha256:{sha256 or f.sha256}\n" for f in files]
        (self.folder / "requirements.txt").write_text("".join(lines))
        return self.folder / "requirements.txt"

    def run(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        mode: Mode = Mode.OBSERVE,
        allow_build: bool = False,
    ) -> run.Finished:
        def start(words: Sequence[str], env: Mapping[str, str]) -> int:
            self.started.append((list(words), dict(env)))
            self.during()
            return self.child_code

        return run.run(
            plan(command, folder=self.folder),
            self.proxy(),
            self.machine.registry,
            self.world,
            now=self.world.now,
            policies=Policies(local=ClientPolicy(mode=mode)),
            environment=environment or {},
            say=self.said.append,
            start=start,
            allow_build=allow_build,
        )

    def proxy(self) -> Proxy:
        """The one index that a child of this machine gets."""
        return Proxy(
            self.machine.registry, self.world, FileStore(self.folder.parent / "store"),
            policies=Policies(), clock=lambda: self.world.now, say=self.said.append,
        )  # fmt: skip

    def refuse(self, code: int, command: Sequence[str], *words: str) -> None:
        """Expect this exit code and words, a child that never started, and unchanged locks."""
        before = self._files()
        try:
            finished = self.run(command)
        except CountermarkError as error:
            assert error.exit_code == code, error
            said = f"{error} {error.hint}"
        else:
            assert finished.exit_code == code and finished.whose == "countermark", finished.to_json()
            said = " ".join(
                [f"{o.error} {o.error.hint}" for o in run.refusals(finished.report)]
                + list(finished.sentences)
            )
        assert all(word in said for word in words), said
        assert self.started == []
        assert self._files() == before

    def _files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}
