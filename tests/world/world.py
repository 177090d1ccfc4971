"""A real registry on loopback, and the people around it: custodians, an operator, publishers, installers.

Used by the demo (`scripts/demo.py`) and by the journeys under tests/. Every program is the real one, run as a
subprocess without a shell, with an environment of its own: no configuration of the machine's pip, uv or twine
leaks in, and nothing is left outside of `root`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

BIN = Path(sys.executable).parent
PASSPHRASE = "a passphrase for this world only"
CUSTODIANS = ("ada", "grace", "lin")
ROLES = ("root", "targets", "trust", "index")
_KEYS: dict[str, tuple[bytes, str]] = {}  # by name: the key file, and its public half


class StoryError(Exception):
    """Something did not go as told; `output` is what the program said."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


@dataclass(frozen=True)
class Done:
    """A program that ended."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything it printed."""
        return self.out + self.err


def must(condition: object, otherwise: str, output: str = "") -> None:
    """The story goes on only if this is so."""
    if not condition:
        raise StoryError(otherwise, output)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class World:
    """One directory, one registry address, and the programs that run in it."""

    root: Path
    origin: str = "demo.test/registry"
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)  # COUNTERMARK_* for the registry's processes
    ready: str = (
        "/tuf/timestamp.json"  # what a registry serves that has finished its first publish: it comes last
    )
    rest: dict[str, str] = field(default_factory=dict)  # the public files when nothing was on its way to them
    _up: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """The registry's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The registry's data directory."""
        return self.root / "registry"

    # --- programs ------------------------------------------------------------------------------------------

    def env(self, home: str = "home", **extra: str) -> dict[str, str]:
        """The environment of every program here: `home` names whose machine it is."""
        where = self.root / home
        where.mkdir(exist_ok=True)
        keep = {k: v for k, v in os.environ.items() if k in {"LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE"}}
        return {
            **keep,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "HOME": str(where),
            "COUNTERMARK_HOME": str(where / "countermark"),
            "COUNTERMARK_PASSPHRASE": PASSPHRASE,
            "NO_PROXY": "127.0.0.1,localhost",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_CACHE_DIR": "1",
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(where / "uv-cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "PYTHONUTF8": "1",
            **extra,
        }

    def run(
        self,
        *command: str | Path,
        home: str = "home",
        cwd: Path | None = None,
        input: str | None = None,
        expect: int | None = 0,
        timeout: float = 120,
        **extra: str,
    ) -> Done:
        """Run a program to its end. Raises StoryError when it does not end with the expected status."""
        argv = tuple(str(part) for part in command)
        started = time.perf_counter()
        done = subprocess.run(
            argv, cwd=cwd or self.root, env=self.env(home, **extra), input=input or "", text=True,
            capture_output=True, check=False, timeout=timeout,
        )  # fmt: skip
        result = Done(argv, done.returncode, done.stdout, done.stderr, time.perf_counter() - started)
        if expect is not None and done.returncode != expect:
            raise StoryError(f"{' '.join(argv)}: exit {done.returncode}, expected {expect}", result.said)
        return result

    # --- act 1: the ceremony and the service ---------------------------------------------------------------

    def init(self) -> Done:
        """The operator makes online keys; only their public halves leave the machine."""
        return self.run(
            "countermark-server", "init", "--data", self.data, "--origin", self.origin, "--base-url", self.url,
            **self.settings,
        )  # fmt: skip

    def ceremony(self, *, trial: bool = True) -> Path:
        """Three custodians, threshold two, from one plan file. Returns the ceremony's output folder."""
        room = self.root / "ceremony"
        room.mkdir()
        (room / "passphrase").write_text(PASSPHRASE + "\n", encoding="utf-8")
        shutil.copy(self.data / "ceremony-input.json", room)
        publics = {
            f"{holder}-{role}": self._make_key(f"{holder}-{role}") for holder in CUSTODIANS for role in ROLES
        }
        publics["ada-authority"] = self._make_key("ada-authority")
        (room / "plan.toml").write_text(
            self._plan(room / "ceremony-input.json", publics, trial), encoding="utf-8"
        )
        self._custodian("prepare", "plan.toml", "--out", "work")
        responses = []
        for holder in CUSTODIANS[:2]:  # two of three are enough
            keys = [
                part for name in publics if name.startswith(holder) for part in ("--key", f"{name}.key.json")
            ]
            responses.append(f"{holder}.response.json")
            self._custodian(
                "sign", f"work/requests/{holder}.request.json", *keys, "--out", responses[-1],
                "--passphrase-file", "passphrase", "--yes",
            )  # fmt: skip
        self._custodian("assemble", "work", *responses, "--out", "out")
        return room / "out"

    def _make_key(self, name: str) -> str:
        """Put one custodian's key file in the room; returns its public half as the plan wants it.

        Made once: the custodians of a process's later worlds bring the keys that they have.
        """
        file = self.root / "ceremony" / f"{name}.key.json"
        if name in _KEYS:
            file.touch(mode=0o600)
            file.write_bytes(_KEYS[name][0])
        else:
            done = self._custodian(
                "keys", "new", "--name", name, "--out", file.name, "--passphrase-file", "passphrase"
            )
            _KEYS[name] = file.read_bytes(), done.out.strip()
        return _KEYS[name][1]

    def _plan(self, handover: Path, publics: dict[str, str], trial: bool) -> str:
        lines = [
            'format = "countermark-ceremony-plan/v1"',
            f'title = "first root of {self.origin}"',
            'operator = "ada"',
            f'origin = "{self.origin}"',
            f"trial = {str(trial).lower()}",
            f"date = {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "[input]",
            f'file = "{handover.name}"',
            f'sha256 = "{hashlib.sha256(handover.read_bytes()).hexdigest()}"',
        ]
        for name, public in publics.items():
            lines += [f"[keys.{name}]", f'holder = "{name.split("-")[0]}"', public]
        for role in ROLES:
            keys = ", ".join(f'"{holder}-{role}"' for holder in CUSTODIANS)
            days = 180 if role == "trust" else 365
            lines += [f"[roles.{role}]", f"keys = [{keys}]", "threshold = 2", f"days = {days}"]
        lines += ["[authority]", 'key = "ada-authority"']
        lines += ["[client_policy]", 'mode = "enforce"', "min_tree_size = 0"]
        lines += ['patterns = [{ project = "built-*", mode = "warn" }]']
        return "\n".join(lines) + "\n"

    def _custodian(self, *arguments: str | Path) -> Done:
        return self.run("countermark-ceremony", *arguments, home="custodians", cwd=self.root / "ceremony")

    def up(self, *arguments: str | Path, seconds: float = 60) -> None:
        """Start the registry and wait until it says that it is ready."""
        log = (self.root / "up.log").open("a", encoding="utf-8")
        command = ["countermark-server", "up", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        self._up = subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=self.root, env=self.env("operator", **self.settings), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._up.poll() is not None:
                raise StoryError(f"up ended with {self._up.returncode}", self.log_tail())
            if self._answers():
                return
            time.sleep(0.05)
        self.down()
        raise StoryError(f"up was not ready within {seconds:.0f} s", self.log_tail())

    def _answers(self) -> bool:
        try:
            return bool(self.get(self.ready))
        except (OSError, urllib.error.URLError):
            return False

    def down(self) -> None:
        """Stop the registry and wait until all of its processes ended."""
        if self._up is None:
            return
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._up.pid, signal.SIGKILL)
                self._up.wait(10)
        self._up = None

    def kill(self, *names: str) -> None:
        """The plug is pulled: these processes die where they are, and `up` ends with one of their names."""
        assert self._up is not None
        for name in names:
            os.kill(self.pid(name), signal.SIGKILL)
        must(self._up.wait(60) != 0, "up ended as if nothing had happened", self.log_tail())
        self._up = None

    def pause(self, name: str) -> None:
        """Stop a process where it is, so that another can do its work; `kill` ends it."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused process go on."""
        os.kill(self.pid(name), signal.SIGCONT)

    def pid(self, name: str) -> int:
        """The process id of one of the registry's processes, as it recorded it."""
        return int(json.loads((self.data / "run" / f"{name}.json").read_text("utf-8"))["pid"])

    def size(self) -> int:
        """How many entries the public checkpoint covers."""
        return int(self.get("/log/checkpoint").splitlines()[1])

    def log_tail(self, lines: int = 40) -> str:
        """The end of what the registry's processes said."""
        path = self.root / "up.log"
        return "\n".join(path.read_text("utf-8").splitlines()[-lines:]) if path.exists() else ""

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # --- people ------------------------------------------------------------------------------------------

    def words(self, ceremony_out: Path) -> str:
        """The twelve words that the custodians read out."""
        return (ceremony_out / "root-words.txt").read_text("utf-8").strip()

    def code(self, login: str) -> str:
        """The one-time code that the operator hands to a person."""
        done = self.operator("login-code", "--login", login)
        return done.out.strip()

    def operator(self, command: str, *arguments: str | Path, expect: int | None = 0) -> Done:
        """A command on the registry's data directory, with the settings that its processes have."""
        return self.run(
            "countermark-server", command, "--data", self.data, *arguments, expect=expect, **self.settings
        )

    def login(self, login: str, words: str, *, home: str = "home") -> Done:
        """Sign in, trusting the root that the words name."""
        given = self.operator("login-code", "--login", login)
        told = re.search(r"COUNTERMARK_READ_TOKENS=\S*=(cmu_\S+)", given.err)  # where not everybody may read
        read = {"COUNTERMARK_READ_TOKENS": f"{self.url}={told[1]}"} if told else {}
        return self.run(
            "countermark",
            "login",
            self.url,
            "--root-words",
            words,
            "--code",
            given.out.strip(),
            home=home,
            **read,
        )

    def token(self, home: str = "home") -> str:
        """The upload token that `login` stored, for tools that are not ours."""
        return self.run("countermark", "token", self.url, home=home).out.strip()

    def get(self, path: str) -> bytes:
        """One public resource of the registry."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def project(self, name: str, version: str = "1.0.0", *, says: str = "hello") -> Path:
        """Build a small pure-Python project on the spot; returns its dist directory."""
        source = self.root / f"{name}-{version}"
        package = source / "src" / name.replace("-", "_")
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f'print("{says}")\n', encoding="utf-8")
        (source / "README.md").write_text(f"# {name}\n", encoding="utf-8")
        (source / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\nrequires-python = ">=3.11"\n'
            'description = "built on the spot"\nreadme = "README.md"\n',
            encoding="utf-8",
        )
        self.run(sys.executable, "-m", "hatchling", "build", cwd=source)
        return source / "dist"

    def machine(self, name: str) -> Path:
        """A virtual environment of somebody who installs; returns its Python."""
        where = self.root / name
        self.run("uv", "venv", "--quiet", "--seed" if name.startswith("pip") else "--no-project", where)
        return where / "bin" / "python"


@contextlib.contextmanager
def fresh(root: Path, **arguments: object) -> Iterator[World]:
    """A world in an empty directory; its registry is stopped at the end, whatever happened."""
    shutil.rmtree(root, ignore_errors=True)
    with World(root, **arguments) as world:  # type: ignore[arg-type]
        yield world


def as_json(done: Done) -> dict[str, object]:
    """What a `--json` command printed."""
    value: dict[str, object] = json.loads(done.out)
    return value


def command_line(command: Sequence[str]) -> str:
    """A command as a person would type it."""
    return " ".join(Path(part).name if part.startswith("/") else part for part in command)
