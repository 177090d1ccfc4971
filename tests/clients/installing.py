"""What people read when an installer is refused: pip, uv, poetry and pdm as they are, before our proxy.

    .venv/bin/python -m tests.clients.installing --write     # plain and TLS; writes docs/reference/installers.md

A case is a registry in some state and a policy; a client is a command line. What a client prints is kept but for what
differs from run to run, and the page holds it: tests run the clients again and compare.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.configuring import Urls, configured
from countermark.demands import read_demands
from countermark.filestore import FileStore
from countermark.proxy import Proxy
from countermark.serving import listening
from tests import archives
from tests.clients.pinned import executable, version
from tests.deploy.privateca import make_certificate
from tests.machine import Machine
from tests.simulator import HOUR, World

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "installers.md"
CLIENTS = ("pip", "uv", "poetry", "pdm")
DOORS = ("http", "tls")
DAY = 24 * HOUR


@dataclass(frozen=True)
class Case:
    """A state of the registry, what is asked here, and for which project."""

    told: str
    project: str = "acme-demo"
    asks: str = "==1.0"
    demands: Mapping[str, Any] = field(default_factory=dict)
    enforce: bool = False
    pin: bool = False
    ci: bool = False
    later: int = 0  # seconds after the registry was last heard of
    away: bool = False
    code: int = 0  # our exit code; 0: installed

    @property
    def installed(self) -> str:
        """The version that must be there afterwards; no other may."""
        return "" if self.code else "1.0"

    @property
    def policies(self) -> Policies:
        pins = (Rule(self.project, Mode.OBSERVE, frozenset(["9f" * 32])),) if self.pin else ()
        asked = ClientPolicy(
            Mode.ENFORCE if self.enforce else Mode.OBSERVE, pins, demands=read_demands(dict(self.demands)),
            says_mode=self.enforce, source="countermark.toml",
        )  # fmt: skip
        return Policies(project=asked, is_ci=self.ci)


CASES = {
    "proved": Case("everything held"),
    "held": Case("a moderator holds the file", "held-demo", code=6),
    "all held": Case(
        "any version is asked for, and a moderator holds the only one", "held-demo", asks="", code=6
    ),
    "newest held": Case("any version is asked for, and an older one is good", "two-demo", asks=""),
    "that one held": Case(
        "the newest is asked for, and a moderator holds that one", "two-demo", asks="==2.0", code=6
    ),
    "removed": Case("the file was taken down as malware", "removed-demo", code=6),
    "wrong bytes": Case("the registry hands out other bytes than were logged", "swapped-demo", code=7),
    "not logged": Case("the index lists a file that is in no entry", "ghost-demo", code=7),
    "too old": Case("nothing new was heard for four days", later=4 * DAY, code=4),
    "away": Case("the registry does not answer", away=True, code=3),
    "other signer": Case("another key signed than is pinned", pin=True, enforce=True, code=5),
    "not pinned": Case("under CI, and no key is pinned", demands={"require-pins": True}, ci=True, code=5),
    "unsigned": Case("nobody but the registry signed", "unsigned-demo", enforce=True, code=5),
    "yanked": Case("yanked files are refused here", "yanked-demo", demands={"yanked": "refuse"}, code=5),
    "denied": Case("the project is on the list of denied ones", demands={"deny": ["acme-*"]}, code=5),
    "not allowed": Case(
        "the project is not on the list of allowed ones", demands={"allow": ["numpy"]}, code=5
    ),
    "cool-down": Case("the release is younger than is asked", demands={"cool-down": "3d"}, code=5),
}


def make_world() -> World:
    """A registry with a file in each state."""
    world = World(now=int(time.time()))
    names = ("acme", "held", "removed", "swapped", "unsigned", "yanked")
    files = {
        name: world.publish(
            f"{name}-demo", data=archives.wheel(f"{name}-demo", "1.0"), signed=name != "unsigned"
        )
        for name in names
    }
    world.decide("hold", files["held"], "malware")
    world.publish("two-demo", "1.0", data=archives.wheel("two-demo", "1.0"))
    world.decide("hold", world.publish("two-demo", "2.0", data=archives.wheel("two-demo", "2.0")), "malware")
    world.decide("takedown", files["removed"], "malware")
    world.yank(files["yanked"])
    world.release()
    world.packages[f"swapped-demo/{files['swapped'].filename}"] = archives.wheel(
        "swapped-demo", "1.0", extra="X: y\n"
    )
    ghost = "ghost_demo-1.0-py3-none-any.whl"
    world.packages[f"ghost-demo/{ghost}"] = data = archives.wheel("ghost-demo", "1.0")
    world.pages["ghost-demo"] = {ghost: hashlib.sha256(data).hexdigest()}
    return world


@dataclass(frozen=True)
class Told:
    """How a client ended, and what it printed."""

    code: int
    said: str
    installed: str  # the version, or nothing
    beside: str = ""  # what `countermark run` prints beside it


class Room:
    """A registry, a proxy for each case before it, and the clients in front of that; plain or on TLS."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.world, self.number = folder, make_world(), 0
        self.beside: list[str] = []
        self.authority, chain, key = make_certificate(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain, key)

    def told(self, client: str, name: str, door: str = "http") -> Told:
        """One client in one case."""
        case, self.number = CASES[name], self.number + 1
        where = self.folder / str(self.number)
        where.mkdir()
        began = self.world.now
        self.beside.clear()
        with self._proxy(case, where, door) as index:
            try:
                self.world.down = (lambda path: True) if case.away else (lambda path: False)
                self.world.now = began + case.later
                found = self._run(client, case, index, where)
            finally:
                self.world.now, self.world.down = began, lambda path: False
        return replace(found, beside=essential("\n".join(self.beside), where, every=True))

    @contextmanager
    def _proxy(self, case: Case, where: Path, door: str) -> Iterator[str]:
        machine = Machine(where / "home", self.world)
        proxy = Proxy(
            machine.registry, self.world, FileStore(where / "store"), policies=case.policies,
            clock=lambda: self.world.now, say=self.beside.append,
        )  # fmt: skip
        with listening(proxy.answer, "127.0.0.1", 0, max_body=0) as server:
            url = server.url
            if door == "tls":
                server.socket = self.context.wrap_socket(server.socket, server_side=True)
                url = url.replace("http://127.0.0.1", "https://localhost")
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"{url}/simple/"
            finally:
                server.shutdown()
                thread.join()
        self.beside += [
            line for line in proxy.withheld() if line.partition(": ")[2] not in " ".join(self.beside)
        ]

    def _run(self, client: str, case: Case, index: str, where: Path) -> Told:
        command = _COMMANDS[client](f"{case.project}{case.asks}", index, where)
        return self._ran(client, command, case.project, index)

    def _ran(self, client: str, command: Command, project: str, index: str) -> Told:
        words, env, where = command
        env = env | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(where),
            "COLUMNS": "400", "NO_COLOR": "1", "NO_PROXY": "127.0.0.1,localhost", "PYTHONUTF8": "1",
        }  # fmt: skip
        if index.startswith("https:"):
            env |= {name: str(self.authority) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")}
            env["POETRY_CERTIFICATES_COUNTERMARK_CERT"] = str(self.authority)
        done = subprocess.run(
            [executable(client), *words],
            cwd=where,
            env=env,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )
        site = where / "site" if client in ("pip", "uv") else where / ".venv"
        module = project.replace("-", "_")
        found = {path.parent.name for path in site.rglob(f"{module}-*.dist-info/METADATA")}
        installed = " ".join(
            sorted(name.removeprefix(f"{module}-").removesuffix(".dist-info") for name in found)
        )
        return Told(done.returncode, essential(done.stdout + done.stderr, where), installed)

    def held_meanwhile(self, client: str, project: str) -> tuple[Told, Told]:
        """A client before and after a hold, with its cache and, if it makes one, its lock from before."""
        case, where = Case("held meanwhile", project), self.folder / project
        where.mkdir()
        file = self.world.publish(project, data=archives.wheel(project, "1.0"))
        with self._proxy(case, where, "http") as index:
            words, env, _ = _COMMANDS[client](f"{project}==1.0", index, where)
            words = [word for word in words if word not in ("--no-cache", "--no-cache-dir")]
            env |= {"PIP_CACHE_DIR": str(where / "cache"), "UV_CACHE_DIR": str(where / "cache")}
            before = self._ran(client, (words, env, where), project, index)
            for kept in ("site", ".venv"):
                shutil.rmtree(where / kept, ignore_errors=True)
            self.world.decide("hold", file, "malware")
            self.world.heartbeat()
            self.world.now += 61  # a judgement is a minute old at most
            return before, self._ran(client, (_FROM_LOCK.get(client, words), env, where), project, index)


Command = tuple[list[str], dict[str, str], Path]  # words, environment, folder


def _pip(wanted: str, index: str, where: Path) -> Command:
    words = [
        "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--target", "site",
        "-i", index, wanted,
    ]  # fmt: skip
    return words, {"PIP_CONFIG_FILE": os.devnull, "PIP_ROOT_USER_ACTION": "ignore"}, where


def _uv(wanted: str, index: str, where: Path) -> Command:
    words = [
        "pip", "install", "--no-config", "--no-cache", "--no-deps", "--no-progress", "--target", "site",
        "--python", sys.executable, "--default-index", index, wanted,
    ]  # fmt: skip
    return words, {}, where


def _project(tool: str, index: str, where: Path) -> None:
    """A project that `countermark configure` pointed at the index."""
    path = where / "pyproject.toml"
    text = '[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = []\n'
    path.write_text(configured(tool, text, path, Urls(index, index)), encoding="utf-8")


def _poetry(wanted: str, index: str, where: Path) -> Command:
    _project("poetry", index, where)
    env = {
        "POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_KEYRING_ENABLED": "false",
        "POETRY_CACHE_DIR": str(where / "cache"),
    }  # fmt: skip
    return ["add", "--no-interaction", "--no-ansi", wanted], env, where


def _pdm(wanted: str, index: str, where: Path) -> Command:
    _project("pdm", index, where)
    env = {"PDM_CHECK_UPDATE": "false", "PDM_CACHE_DIR": str(where / "cache"), "PDM_IGNORE_ACTIVE_VENV": "1"}
    return ["add", "--no-self", "--no-isolation", wanted], env | {"PDM_NON_INTERACTIVE": "1"}, where


_COMMANDS: dict[str, Callable[[str, str, Path], Command]] = {
    "pip": _pip, "uv": _uv, "poetry": _poetry, "pdm": _pdm,
}  # fmt: skip


_FROM_LOCK = {"poetry": ["sync", "--no-interaction", "--no-ansi"], "pdm": ["sync", "--no-self"]}


def essential(text: str, where: Path, *, every: bool = False) -> str:
    """The lines that tell why, without what differs from run to run."""
    for pattern, stands in (
        (rf"{re.escape(str(where))}[^\s\"]*", "FILE"), (r"https?://(?:127\.0\.0\.1|localhost):\d+", "INDEX"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"\b[0-9a-f]{12}\.\.\.", "HASH..."), (r"#\d+|entry \d+", "#N"), (r"\b\d+(?:\.\d+)?m?s\b", "TIME"),
        (r"\b\d+ s old", "TIME old"),
    ):  # fmt: skip
        text = re.sub(pattern, stands, text)
    told = [re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in text.splitlines()]
    told = [line for line in told if line and (every or SAYS.search(line))]
    return "\n".join(dict.fromkeys(told))


SAYS = re.compile(
    r"exit-\d|Server message|yanked|No matching|no matching|not found|from versions|unsatisfiable|DO NOT MATCH|"
    r"Could not find|[Nn]o solution|Unable to find|doesn't match any"
)


NOTHING = "(no reason)"


# --- the page ---------------------------------------------------------------------------------------------


def section(name: str, told: Mapping[str, Told]) -> str:
    """What the clients say in one case."""
    case = CASES[name]
    lines = [
        f"### {name}",
        "",
        f"{case.told[0].upper()}{case.told[1:]}; for us that is exit code {case.code}.",
        "",
    ]
    for client, each in told.items():
        lines += [f"{client} ends with {each.code}:", "", "```text", each.said or NOTHING, "```", ""]
    beside = told["uv"].beside
    return "\n".join([*lines, "`countermark run` prints beside it:", "", "```text", beside, "```", ""])


def block(name: str, client: str) -> tuple[int, str]:
    """What the page says that a client says, and its exit code."""
    part = PAGE.read_text("utf-8").partition(f"### {name}\n")[2].partition("\n### ")[0]
    found = re.search(rf"(?ms)^{client} ends with (\d+):\n\n```text\n(.*?)\n```$", part)
    assert found is not None, (name, client)
    return int(found[1]), "" if found[2] == NOTHING else found[2]


def beside(name: str) -> str:
    """What the page says that `countermark run` prints."""
    part = PAGE.read_text("utf-8").partition(f"### {name}\n")[2].partition("\n### ")[0]
    return part.rpartition("```text\n")[2].rpartition("\n```")[0]


HEAD = """\
# What installers say

pip, uv, poetry and pdm, unmodified, before [the proxy](../how-to/install-unpinned.md), in each case in which it
refuses: what reaches the person, and how the program ends. Nothing was installed but where the table says so. `make
test-matrix` runs
all of it again, on plain HTTP and on TLS; this page is written by `python -m tests.clients.installing --write`, and
`scripts/latest-installers.sh` does the same with the newest versions.

"""


def written(all_told: Mapping[tuple[str, str, str], Told]) -> str:
    """The page."""
    text = (
        HEAD
        + "Versions: "
        + "; ".join(version(client).partition(" from ")[0] for client in CLIENTS)
        + "\n\n## The matrix\n\n"
    )
    text += "| case | ours | " + " | ".join(f"{c}, {d}" for c in CLIENTS for d in DOORS) + " |\n"
    text += "|---" * (2 + len(CLIENTS) * len(DOORS)) + "|\n"
    for name, case in CASES.items():
        cells = [all_told[c, name, d] for c in CLIENTS for d in DOORS]
        words = [f"{'installed' if cell.installed else 'refused'} ({cell.code})" for cell in cells]
        text += f"| {name} | {case.code} | " + " | ".join(words) + " |\n"
    text += (
        "\nThe number after each word is the program's own exit code; `countermark run` tells ours beside it. Every "
        "one of them shows the reason that comes with a file, and some of them one that comes with a page. So where "
        "nothing is left of a version its place on the page is taken by names that are no file's, and the reason "
        "comes with those. Only where the registry does not answer can nobody name a version: there pip and pdm show "
        "no reason.\n"
        "\n## In their words\n\n"
    )
    parts = [
        section(name, {c: all_told[c, name, "http"] for c in CLIENTS})
        for name, case in CASES.items()
        if case.code
    ]
    return text + "\n".join(parts).rstrip() + "\n"


def main(*options: str) -> int:
    with TemporaryDirectory() as folder:
        room = Room(Path(folder))
        told = {(c, n, d): room.told(c, n, d) for c in CLIENTS for n in CASES for d in DOORS}
    text = written(told)
    print(text[text.index("Versions") : text.index("## In their words")])
    wrong = [k for k, each in told.items() if each.installed != CASES[k[1]].installed]
    for key in wrong:
        print(f"not as it must be: {key}: {told[key]}", file=sys.stderr)
    if "--write" in options:
        PAGE.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
