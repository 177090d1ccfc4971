"""One way to say "upload this project" to five clients, and to read what they printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.clients.pinned import executable
from tests.world.world import Done, World

DATE = "1760000000"  # flit builds when it publishes: at a fixed date, the same bytes again


@dataclass(frozen=True)
class Target:
    """Where to upload: the door, and the authority its certificate is from."""

    url: str
    authority: Path | None = None

    @property
    def trusts(self) -> dict[str, str]:
        """The variables by which clients take a private authority."""
        if self.authority is None:
            return {}
        return {"SSL_CERT_FILE": str(self.authority), "REQUESTS_CA_BUNDLE": str(self.authority)}


def make_project(world: World, name: str, version: str = "1.0", *, says: str = "hello") -> Path:
    """A project of one module, built; any of the clients can publish it from its folder."""
    folder = world.root / "projects" / f"{name}-{version}-{abs(hash(says)) if len(says) > 20 else says}"
    folder.mkdir(parents=True)
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(f'"""A module that says {says}."""\n', encoding="utf-8")
    (folder / "README.md").write_text("# A module\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit_core >=3.11,<5"]\nbuild-backend = "flit_core.buildapi"\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\ndescription = "for a test"\nreadme = "README.md"\n'
        'requires-python = ">=3.11"\n',
        encoding="utf-8",
    )
    world.run(executable("flit"), "build", "--no-use-vcs", cwd=folder, SOURCE_DATE_EPOCH=DATE)
    return folder


def upload(client: str, world: World, folder: Path, target: Target, token: str) -> Done:
    """Publish the project in `folder` with this client, as its manual says."""
    files = sorted(path for path in (folder / "dist").iterdir() if path.suffix in (".whl", ".gz"))
    words, env = _COMMANDS[client](target, token, files)
    return world.run(executable(client), *words, cwd=folder, expect=None, **target.trusts, **env)


def said(done: Done) -> str:
    """All that was printed, without the blanks and frames in which clients wrap it."""
    return re.sub(r"[\s│╭╮╰╯─]+", "", done.said)


_Command = tuple[tuple[str | Path, ...], dict[str, str]]


def _twine(target: Target, token: str, files: list[Path]) -> _Command:
    words = ("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", target.url)
    return (*words, "-u", "__token__", "-p", token, *files), {}


def _uv(target: Target, token: str, files: list[Path]) -> _Command:
    return ("publish", "--no-config", "--publish-url", target.url, "--token", token, *files), {}


def _poetry(target: Target, token: str, files: list[Path]) -> _Command:
    env = {
        "POETRY_REPOSITORIES_COUNTERMARK_URL": target.url,
        "POETRY_HTTP_BASIC_COUNTERMARK_USERNAME": "__token__",
        "POETRY_HTTP_BASIC_COUNTERMARK_PASSWORD": token,
        "POETRY_KEYRING_ENABLED": "false",
        "POETRY_VIRTUALENVS_CREATE": "false",
    }
    if target.authority is not None:
        env["POETRY_CERTIFICATES_COUNTERMARK_CERT"] = str(target.authority)
    return ("publish", "--no-interaction", "--repository", "countermark"), env


def _hatch(target: Target, token: str, files: list[Path]) -> _Command:
    words = ("--no-color", "publish", "--no-prompt", "--repo", target.url, "--user", "__token__")
    return (*words, "--auth", token, *files), {}


def _flit(target: Target, token: str, files: list[Path]) -> _Command:
    env = {"FLIT_INDEX_URL": target.url, "FLIT_USERNAME": "__token__", "FLIT_PASSWORD": token}
    return ("publish", "--no-use-vcs"), {**env, "SOURCE_DATE_EPOCH": DATE}


_COMMANDS = {"twine": _twine, "uv": _uv, "poetry": _poetry, "hatch": _hatch, "flit": _flit}
