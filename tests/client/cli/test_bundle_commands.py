"""`bundle make`, `bundle verify` and `evidence check` as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from countermark import cli
from countermark.pins import Home
from tests.machine import Machine
from tests.simulator import World

NO_NETWORK = Path(__file__).resolve().parents[2] / "no_network.py"
NAME = "acme_demo-1.0-py3-none-any.whl"


class Desk:
    """One person, one registry in memory, and a folder with a wheel in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = World(now=int(time.time()))
        self.published = self.world.publish("acme-demo")
        self.folder, self._capsys, self.err = folder, capsys, ""
        self.wheel = folder / "dist" / NAME
        self.wheel.parent.mkdir()
        self.wheel.write_bytes(self.published.data)
        self.bundle = folder / "countermark" / f"{NAME}.countermark"

    def run(self, *words: object, expect: int = 0) -> str:
        code = cli.main([str(word) for word in words])
        out, self.err = self._capsys.readouterr()
        assert code == expect, f"{code}\n{out}\n{self.err}"
        return out

    def json(self, *words: object, expect: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", expect=expect))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    desk = Desk(tmp_path, capsys)
    for name in ("CI", "COUNTERMARK_REGISTRY", "COUNTERMARK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "home"))
    for module in ("fetch", "mirrors", "commands_audit", "commands_install", "commands_trust"):
        monkeypatch.setattr(f"countermark.{module}.HttpFetcher", lambda **_: desk.world)
    monkeypatch.chdir(tmp_path)
    Home(tmp_path / "home").add(desk.world.base, desk.world.root)
    return desk


def test_make_and_verify(desk: Desk) -> None:
    """The bundle lies in ./countermark, never in dist/; with the registry gone the three claims are printed."""
    made = desk.json("bundle", "make", desk.wheel)
    assert made["bundles"][0]["bundle"] == str(Path("countermark") / f"{NAME}.countermark")
    assert [path.name for path in desk.wheel.parent.iterdir()] == [NAME]
    desk.world.down = lambda path: True
    told = desk.run("bundle", "verify", desk.wheel).splitlines()
    assert told[0].startswith(f"{NAME}: verified offline, entry #{desk.published.index}, signed by key")
    assert told[1].lstrip().startswith("logged by ") and told[1].endswith("seen by w1")
    assert "listed and in good standing as of entry" in told[2] and "unknown since" in told[3]
    document = desk.json("bundle", "verify", desk.wheel)
    assert document["verified"] and document["exit_code"] == 0 and document["max_age"] == 86400
    assert {"age", "listed", "logged", "unknown_since"} == document["artifacts"][0]["claims"].keys()


def sealed(desk: Desk, *words: object) -> subprocess.CompletedProcess[str]:
    """The program as people start it, on a machine on which whoever asks for a socket is killed."""
    command = [sys.executable, str(NO_NETWORK), sys.executable, "-I", "-m", "countermark", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=desk.folder, env=os.environ
    )


def test_a_machine_without_network_is_told_the_three_claims(desk: Desk) -> None:
    """No connection, and no attempt: by the log and its witnesses, by the timestamp key, and what nobody can know."""
    desk.run("bundle", "make", desk.wheel)
    done = sealed(desk, "bundle", "verify", desk.wheel)
    assert done.returncode == 0, done
    told = [line.strip() for line in done.stdout.splitlines()]
    assert told[0].startswith(f"{NAME}: verified offline, entry #{desk.published.index}")
    for said, claim in zip(
        told[1:], ("logged by ", "listed and in good standing as of ", "unknown since "), strict=True
    ):
        assert said.startswith(claim)
    document = json.loads(sealed(desk, "bundle", "verify", desk.wheel, "--json").stdout)
    assert document["verified"] and document["artifacts"][0]["claims"].keys() >= {
        "logged",
        "listed",
        "unknown_since",
    }


def test_a_machine_without_network_refuses_as_any_other(desk: Desk) -> None:
    """Swapped bytes: 7, and the evidence is kept and checked there, too."""
    desk.run("bundle", "make", desk.wheel)
    desk.wheel.write_bytes(b"swapped")
    done = sealed(desk, "bundle", "verify", desk.wheel)
    assert done.returncode == 7 and "evidence" in done.stderr, done
    (kept,) = (desk.folder / "home").rglob("evidence/*")
    checked = sealed(desk, "evidence", "check", kept)
    assert checked.returncode == 0 and checked.stdout, checked


def test_whoever_asks_for_a_socket_there_is_killed(desk: Desk) -> None:
    """What the two before rest on: a command that goes out does not end of its own accord, whatever it catches."""
    assert sealed(desk, "bundle", "make", desk.wheel).returncode == -signal.SIGSYS
    command = [
        sys.executable,
        str(NO_NETWORK),
        sys.executable,
        "-c",
        "import socket\ntry: socket.socket()\nfinally: exit()",
    ]
    assert subprocess.run(command, check=False).returncode == -signal.SIGSYS


def test_a_bundle_is_never_overwritten_silently(desk: Desk) -> None:
    """A second `make` is refused, and --replace says that it is meant."""
    desk.run("bundle", "make", desk.wheel)
    before = desk.bundle.read_bytes()
    second = desk.world.publish("acme-demo", "2.0")
    other = desk.wheel.with_name(second.filename)
    other.write_bytes(second.data)
    desk.run("bundle", "make", other, desk.wheel, expect=2)
    assert "already exists" in desk.err and "--replace" in desk.err
    assert desk.bundle.read_bytes() == before and len(list(desk.bundle.parent.iterdir())) == 1
    desk.world.now += 1
    desk.world.heartbeat()
    desk.run("bundle", "make", "--replace", desk.wheel)
    assert desk.bundle.read_bytes() != before


def test_every_refusal_has_its_exit_code(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 no bundle, 2 a bad age, 4 too old, 7 swapped bytes, 5 no trust."""
    desk.run("bundle", "verify", desk.wheel, expect=2)
    assert "bundle make" in desk.err
    desk.run("bundle", "make", desk.wheel)
    desk.run("bundle", "verify", "--max-age", "soon", desk.wheel, expect=2)
    then = desk.world.now
    monkeypatch.setattr(time, "time", lambda: then + 90_000)
    desk.run("bundle", "verify", desk.wheel, expect=4)
    assert "--max-age" in desk.err
    desk.run("bundle", "verify", "--max-age", "7d", desk.wheel)
    desk.wheel.write_bytes(b"swapped")
    refused = desk.json("bundle", "verify", "--max-age", "7d", desk.wheel, expect=7)
    assert not refused["verified"]
    assert "evidence (observation) is in" in refused["artifacts"][0]["hint"]
    desk.run("bundle", "verify", "--registry", "https://elsewhere.test", desk.wheel, expect=5)


def test_a_held_file_gets_no_bundle(desk: Desk) -> None:
    """Exit 6, and no file is written."""
    desk.world.decide("hold", desk.published, "malware")
    desk.world.release()
    desk.run("bundle", "make", desk.wheel, expect=6)
    assert not desk.bundle.exists()


def test_evidence_is_explained_in_three_sentences(desk: Desk, tmp_path: Path) -> None:
    """A fork's evidence file, carried elsewhere; without a pin for its registry nobody vouches for its keys."""
    fork = desk.world.copy()
    desk.world.publish("acme-demo", "2.0")
    fork.publish("acme-demo", "2.0", data=b"another")
    machine = Machine(tmp_path / "home", desk.world)
    machine.accept(desk.published)
    fork.now += 1
    fork.versions = fork.versions | {"timestamp": 50}
    fork.heartbeat()
    machine.refuse(7, "fork", desk.published, world=fork)
    (path,) = machine.evidence()
    carried = tmp_path / "elsewhere.json"
    carried.write_bytes(path.read_bytes())
    desk.world.down = lambda path: True
    sentences = desk.run("evidence", "check", carried).splitlines()
    assert len(sentences) == 3 and "signed two histories" in sentences[0] and "self-proving" in sentences[2]
    assert desk.json("evidence", "check", carried)["proved"] is True
    root = tmp_path / "root.json"
    root.write_bytes(desk.world.root)
    os.environ["COUNTERMARK_HOME"] = str(tmp_path / "nobody")  # monkeypatch restores it
    desk.run("evidence", "check", carried, expect=5)
    assert "nobody vouches" in desk.err
    assert len(desk.run("evidence", "check", carried, "--root", root).splitlines()) == 3
    document = json.loads(carried.read_bytes())
    document["objects"]["checkpoint-seen"] = document["objects"]["checkpoint-offered"]
    carried.write_text(json.dumps(document))
    desk.run("evidence", "check", carried, "--root", root, expect=7)
    carried.write_text("{}")
    desk.run("evidence", "check", carried, expect=7)


# What a cold `bundle verify` may load beside the standard library: each module costs every later check its time.
OFFLINE_MODULES = (
    "__main__ bins bundle canonical claims cli cli_parts cli_verify clientpolicy commands_bundle console demanded "
    "demands digest disk entry errors evidence identities imported limits machine manifest matching names "
    "offline pins policyfile schema signature statement timeline timestamp tlog trustfile tufjson values "
    "verified"
)
# Of the standard library, what would cost more than the check; and of others, all but cryptography's primitives.
DEAR = {
    "dataclasses",
    "inspect",
    "ast",
    "dis",
    "tomllib",
    "shutil",
    "random",
    "threading",
    "http",
    "email",
    "socket",
    "ssl",
    "select",
    "asyncio",
    "locale",
    "hmac",
    "tempfile",
    "subprocess",
    "importlib.metadata",
    "importlib.resources",
    "hashlib",
    "_hashlib",
    "gettext",
    "urllib.parse",
    "ipaddress",
}
NEVER = (
    "cryptography.x509",
    "cryptography.hazmat.primitives.s",
    "cryptography.hazmat.primitives.asymmetric.ec",
)


def test_a_cold_bundle_verify_keeps_its_import_budget(desk: Desk) -> None:
    """A module that comes in by accident (tuf, urllib3, x509, dataclasses) fails here by its name."""
    desk.run("bundle", "make", desk.wheel)
    program = (
        "import sys; from countermark.__main__ import _spare; _spare(); "
        "from countermark.cli import main; code = main(sys.argv[1:]); "
        "print('loaded', *sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-I", "-c", program, "bundle", "verify", str(desk.wheel)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=desk.folder, env=os.environ
    )
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    ours = {name.split(".")[1] for name in loaded if name.startswith("countermark.")}
    assert ours == set(OFFLINE_MODULES.split())
    assert not DEAR & loaded
    assert not [name for name in loaded if name.startswith(NEVER)]
    foreign = {name.split(".")[0] for name in loaded} - sys.stdlib_module_names
    assert not foreign & {"tuf", "securesystemslib", "urllib3", "orjson", "requests", "certifi"}


def test_what_is_spared_is_there_for_whoever_asks() -> None:
    """After the stand-ins, gettext and urllib.parse are the real ones, and pathlib and argparse work with them."""
    program = (
        "import sys; from countermark.__main__ import _spare; _spare(); "
        "assert not {'gettext', 'urllib.parse'} & sys.modules.keys(); "
        "import argparse, pathlib; print(pathlib.Path('/a b').as_uri()); "
        "import gettext, urllib.parse; print(gettext.translation, urllib.parse.urlsplit('a://b').netloc); "
        "argparse.ArgumentParser(prog='p').parse_args(['x'])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("file:///a%20b\n<function translation") and done.stdout.endswith(" b\n")
    assert done.returncode == 2 and done.stderr.endswith("error: unrecognized arguments: x\n")


def test_what_comes_later_is_there_for_whoever_asks() -> None:
    """urllib3 is loaded without `importlib.metadata`; then it is the real one, by every way to it."""
    program = (
        "import sys; from countermark.__main__ import _later; _later(); import urllib3, importlib; "
        "from urllib3.http2 import version; assert 'zipfile' not in sys.modules; assert version('urllib3') > '2'; "
        "import importlib.metadata; from importlib import metadata; "
        "assert metadata is importlib.metadata is sys.modules['importlib.metadata']; "
        "assert metadata.__file__ and metadata.version is not version and version('urllib3') > '2'"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    program = (
        "import sys; from countermark.__main__ import _later; _later(); import importlib; "
        "assert importlib.metadata.distribution('urllib3').files; assert importlib.metadata.__spec__; "
        "from importlib.metadata import entry_points; assert entry_points.__module__ == 'importlib.metadata'"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)


def test_a_process_that_signs_nothing_does_without_the_modules_of_tokens() -> None:
    """tuf imports python-pkcs11 where the extra is installed; verify and run do not, and know no key of it."""
    program = (
        "import sys; from countermark.__main__ import _SIGNERS, _without; _without(_SIGNERS); "
        "import tuf.ngclient; assert sys.modules['pkcs11'] is None and 'asn1crypto' not in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
