"""Two timestampers and one key, every process real: the page on standbys, typed on two machines.

The machines are folders: the registry's, `stamp-a`, `stamp-b`, and the fence that the last two see.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from countermark.timestamp import Timestamp
from countermark_server.operate.initialise import WITNESS
from countermark_server.operate.processes import Children, free_port
from countermark_server.timestamper.fence import Claim
from tests.server.cli.test_up import Up

PAGE = (Path(__file__).parents[2] / "docs/operations/standby.md").read_text("utf-8")
HOME = "/var/lib/countermark/registry"
SERVER = [sys.executable, "-m", "countermark_server.cli"]
TIMESTAMPER = [sys.executable, "-m", "countermark_server.timestamper"]
PATIENCE = 120.0  # seconds, on a machine with other work


def blocks(section: str) -> list[tuple[str, list[str]]]:
    """The commands of one section, block by block: on which machine, and what is typed there."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^( *)```sh\n\1# (stamp-[ab])\n(.*?)\n\1```$", text, re.MULTILINE | re.DOTALL)
    return [(machine, [line.strip() for line in body.splitlines()]) for _, machine, body in found]


class Machines:
    """A registry without a timestamper of its own, and two machines for timestampers."""

    def __init__(self, folder: Path, made: Up) -> None:
        self.folder, self.registry, self.web = folder, made.data, made.url
        self.fence = folder / "fence"
        self.fence.mkdir(mode=0o700)
        self.doors = {name: f"127.0.0.1:{free_port()}" for name in ("stamp-a", "stamp-b")}
        self.witness = f"127.0.0.1:{free_port()}"
        self.children = Children(folder / "output")
        moved = self.data("stamp-a")
        moved.mkdir(parents=True)
        for name in ("settings.toml", "passphrase"):
            shutil.copy2(self.registry / name, moved)
        shutil.move(self.registry / "timestamper", moved)
        self.environment = {
            **os.environ,
            "COUNTERMARK_DATA": str(self.registry),
            "COUNTERMARK_WEB_LISTEN": self.web.removeprefix("http://"),
            "COUNTERMARK_REGISTRY_BASE_URL": self.web,
            "COUNTERMARK_TIMESTAMPER_REGISTRY_URL": self.web,
            "COUNTERMARK_TIMESTAMPER_RETRY_INTERVAL": "0.2",
            "COUNTERMARK_TUF_MIN_INTERVAL": "0.2",
            "COUNTERMARK_TUF_HEARTBEAT": "1",
            "COUNTERMARK_LOG_WITNESS_URLS": f"{WITNESS}=http://{self.witness}",
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "prometheus"),
        }
        (folder / "prometheus").mkdir()

    def data(self, machine: str) -> Path:
        return self.folder / machine / "registry"

    def start_registry(self) -> None:
        """Witness, web and log; tufrepo asks whom `point_at` names."""
        witness = [
            sys.executable,
            "-m",
            "countermark",
            "witness",
            "run",
            "--dir",
            str(self.registry / "witness"),
        ]
        self.children.start("witness", [*witness, "--listen", self.witness], self.environment)
        gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:countermark_server.gunicorn_conf"]
        self.children.start("web", [*gunicorn, "countermark_server.wsgi:app"], self.environment)
        self.children.start("log", [*SERVER, "work", "log", "--data", str(self.registry)], self.environment)

    def point_at(self, machine: str) -> None:
        self.children.stop(["tufrepo"])
        env = {**self.environment, "COUNTERMARK_TIMESTAMPER_LISTEN": self.doors[machine]}
        self.children.start("tufrepo", [*SERVER, "work", "tufrepo", "--data", str(self.registry)], env)

    def type(self, machine: str, lines: list[str]) -> None:
        """What the page says, on this machine; systemd is us, scp is cp."""
        for line in lines:
            if line.startswith("systemctl "):
                _, verb, unit = line.split()
                assert unit == "countermark-timestamper"
                self.systemctl(machine, verb)
            elif line.startswith("python -m countermark_server.timestamper"):
                done = self.timestamper(machine, *line.split()[3:])
                assert done.returncode == 0, done.stderr
            else:
                other = self.data("stamp-a")
                typed = line.replace(f"scp -p stamp-a:{HOME}", f"cp -p {other}").replace(
                    HOME, str(self.data(machine))
                )
                subprocess.run(["bash", "-ec", f"umask 077; {typed}"], check=True, timeout=20)

    def systemctl(self, machine: str, verb: str) -> None:
        if verb == "stop":
            self.children.stop([machine])
            return
        argv = [*TIMESTAMPER, "--data", str(self.data(machine)), "--listen", self.doors[machine]]
        self.children.start(machine, argv, self.environment)

    def timestamper(self, machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end."""
        argv = [*TIMESTAMPER, *(part.replace(HOME, str(self.data(machine))) for part in arguments)]
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **env}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def public(self) -> int:
        """The version of the public timestamp."""
        return Timestamp.parse((self.registry / "public/tuf/timestamp.json").read_bytes()).version

    def newest(self) -> Claim:
        path = max(self.fence.glob("*.json"), key=lambda path: int(path.stem))
        return Claim.parse(path.read_bytes())

    def holder(self, version: int) -> str:
        return Claim.parse((self.fence / f"{version}.json").read_bytes()).holder

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        self.children.wait_until(what, ready, seconds=PATIENCE, stop=threading.Event())

    def wait_newer(self, version: int) -> None:
        self.wait(f"a timestamp newer than {version}", lambda: self.public() > version)

    def pause(self, machine: str) -> None:
        """The machine sleeps, at a moment at which everything that it signed is public."""
        pid = self.children.pids()[machine]
        for _ in range(200):
            os.kill(pid, signal.SIGSTOP)
            if self.newest().version == self.public():
                return
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
        raise AssertionError("it never came to rest")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Up(tmp_path, "--trial", "--origin", "standby.test/registry", "--bit-length", "2")
    try:
        made.wait_ready(120)
    finally:
        assert made.stop() == 0
    machines = Machines(tmp_path, made)
    try:
        yield machines
    finally:
        for pid in machines.children.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        machines.children.stop(["stamp-a", "stamp-b", "tufrepo", "web"])
        machines.children.stop(["log", "witness"])


def said_by_the_page(text: str) -> list[str]:
    """The lines that the page shows, as patterns; both machines have the name of this one here."""
    shown = re.findall(r"^```text\n(.*?)```$", text, re.MULTILINE | re.DOTALL)[0]
    shown = shown.replace("stamp-b", socket.gethostname())
    return [".+".join(map(re.escape, line.split("…"))) for line in shown.splitlines()]


def test_a_standby_takes_over_while_the_other_machine_sleeps_and_it_signs_no_more(machines: Machines) -> None:
    """Set up, taken over, woken up, taken back with `--lost`; no version has two contents and the log is clean."""
    fence = f'fence = "{machines.fence}"\n'
    settings = machines.data("stamp-a") / "settings.toml"
    settings.write_text(settings.read_text("utf-8") + f"\n[timestamper]\n{fence}", encoding="utf-8")
    machines.start_registry()
    machines.wait("web", lambda: machines.run("curl", "-sf", f"{machines.web}/healthz").returncode == 0)
    (a, on_a), (b, on_b) = blocks("Set it up")
    refused = machines.timestamper(a, "--data", HOME, "--listen", machines.doors[a])
    assert refused.returncode == 7 and "nobody ever won a number in the fence" in refused.stderr
    machines.systemctl(a, "stop")
    machines.type(a, on_a)
    machines.point_at(a)
    machines.wait_newer(machines.newest().version)
    machines.type(b, on_b)
    secret = [machines.data(b) / "passphrase", machines.data(b) / "timestamper/timestamp.json"]
    assert [path.stat().st_mode & 0o777 for path in secret] == [0o600] * 2
    first = machines.holder(machines.public())

    early = machines.timestamper(b, "--data", HOME, "--listen", machines.doors[b])
    assert early.returncode == 2 and f"({first}) won number" in early.stderr

    (taking, on_b), (giving_up, lost) = blocks("Take over")
    assert (taking, giving_up) == (b, b)
    machines.pause(a)
    before = machines.public()
    machines.type(b, on_b)
    assert machines.newest().version == before + 1 and machines.newest().signs is None
    machines.point_at(b)
    machines.wait_newer(before)
    assert machines.public() == before + 2  # the first that the standby signed
    second = machines.holder(before + 2)
    assert second != first

    os.kill(machines.children.pids()[a], signal.SIGCONT)
    said = machines.folder / "output" / "stamp-a.log"
    machines.wait("the old one's alarm", lambda: '"taken-over"' in said.read_text("utf-8"))
    machines.wait_newer(before + 3)
    later = [
        Claim.parse(path.read_bytes()) for path in machines.fence.glob("*.json") if int(path.stem) > before
    ]
    assert {claim.holder for claim in later} == {second}
    machines.systemctl(a, "stop")
    again = machines.timestamper(a, "--data", HOME, "--listen", machines.doors[a])
    assert again.returncode == 2
    for shown, line in zip(said_by_the_page(PAGE), again.stderr.splitlines()[-2:], strict=True):
        assert re.fullmatch(shown, line), line

    machines.pause(b)  # and now its disk is gone, with a number won that nobody has seen used
    number = machines.newest().version + 1
    won = Claim(number, second, "stamp-b", "77" * 32)
    (machines.fence / f"{number}.json").write_bytes(won.format())
    os.kill(machines.children.pids()[b], signal.SIGKILL)
    machines.children.stop([b])
    shutil.rmtree(machines.data(b))
    refused = machines.timestamper(a, "--data", HOME, "--take-over")
    assert refused.returncode == 2
    assert f"won number {number}, and its timestamp is not public" in refused.stderr
    machines.type(a, [*lost, "systemctl start countermark-timestamper"])
    machines.point_at(a)
    machines.wait_newer(number)
    assert machines.holder(machines.public()) not in {first, second}
    check(machines)


def check(machines: Machines) -> None:
    """Whoever reads everything finds nothing: every public timestamp that was replaced is in the log."""
    done = machines.run(*SERVER, "fsck", "--data", str(machines.registry))
    assert done.returncode == 0, done.stdout + done.stderr
    home = {"COUNTERMARK_HOME": str(machines.folder / "home")}
    root = str(machines.registry / "public/tuf/1.root.json")
    countermark = [sys.executable, "-m", "countermark"]
    added = machines.run(*countermark, "trust", "add", machines.web, "--root", root, **home)
    assert added.returncode == 0, added.stderr
    audit = machines.run(*countermark, "audit", machines.web, "--json", "--allow-trial", **home)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert json.loads(audit.stdout)["findings"] == []


def test_every_command_of_the_page_is_typed() -> None:
    """Both sections have the blocks above, and no block is in a form that nobody types."""
    assert [machine for machine, _ in blocks("Set it up")] == ["stamp-a", "stamp-b"]
    assert [machine for machine, _ in blocks("Take over")] == ["stamp-b", "stamp-b"]
    assert PAGE.count("```sh") == 4 and PAGE.count("```text") == 1
