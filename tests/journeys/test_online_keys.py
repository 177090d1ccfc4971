"""A running registry whose online TUF keys are on tokens: it publishes, and starts with no other keys."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import Updater

from countermark.fetch import HttpFetcher
from countermark.pins import Home
from countermark.trust import opened
from tests.server.cli.test_up import Up
from tests.softhsm import PIN, SoftHsm

URIS = {
    "bins": "hsm:1?label=registry",
    "snapshot": "hsm:2?label=registry",
    "timestamp": "pkcs11ed:1?label=clock",
}
OTHER = "hsm:3?label=registry"


def make(hsm: SoftHsm, *uris: str) -> None:
    """Keys on tokens, by a process of its own: a PKCS#11 library is loaded once, with what it saw then."""
    program = "import sys; from countermark import tokens\nfor uri in sys.argv[1:]: "
    program += f"tokens.generate(tokens.Place.parse(uri), '{PIN}', name='online')"
    subprocess.run([sys.executable, "-c", program, *uris], env=hsm.environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    drawer = SoftHsm(tmp_path_factory.mktemp("hsm"))
    drawer.token("registry")
    drawer.token("clock")
    make(drawer, *URIS.values(), OTHER)
    return drawer


@pytest.fixture(scope="module")
def environment(hsm: SoftHsm) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
            patch.setenv(name, hsm.environment[name])
        yield patch


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, environment: pytest.MonkeyPatch) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("tokens")
    data = folder / "data"
    keys = [word for role, uri in URIS.items() for word in ("--key", f"{role}={uri}")]
    argv = [sys.executable, "-m", "countermark_server.cli", "init", "--data", str(data)]
    argv += ["--origin", "tokens.test/registry", "--bit-length", "3", *keys]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert {line.split()[0] for line in done.stdout.splitlines()} >= set(URIS)  # fingerprints, for the plan
    assert not (data / "timestamper/timestamp.json").exists() and not (data / "keys/bins.json").exists()
    (data / "keys/pin").write_text(f"{PIN}\n")
    (data / "timestamper").mkdir(exist_ok=True)
    (data / "timestamper/pin").write_text(f"{PIN}\n")
    running = Up(folder, "--trial")
    running.wait_ready()
    yield running
    running.stop()


def test_clients_verify_what_tokens_signed(up: Up, tmp_path: Path) -> None:
    """Our client and stock ngclient walk from a root with ECDSA and Ed25519 keys to an (empty) bin."""
    root = up.get("/tuf/1.root.json")
    signed = Metadata[Root].from_bytes(root).signed
    schemes = {role: signed.keys[signed.roles[role].keyids[0]].scheme for role in ("snapshot", "timestamp")}
    assert schemes == {"snapshot": "ecdsa-sha2-nistp256", "timestamp": "ed25519"}
    with opened(Home(tmp_path / "ours").add(up.url, root), HttpFetcher(), now=int(time.time())) as view:
        assert view.target("files/acme/acme-1.0.tar.gz") is None
    (tmp_path / "stock").mkdir()
    updater = Updater(str(tmp_path / "stock"), f"{up.url}/tuf/", bootstrap=root)
    updater.refresh()
    assert updater.get_targetinfo("files/acme/acme-1.0.tar.gz") is None


@pytest.mark.parametrize(
    ("role", "process"), [("bins", "tufrepo"), ("snapshot", "tufrepo"), ("timestamp", "timestamper")]
)
def test_another_key_behind_the_uri_is_refused_at_the_start(
    up: Up, environment: pytest.MonkeyPatch, role: str, process: str
) -> None:
    """Exit 7, both key ids, nothing written: the key that metadata names and the one that is there."""
    public = up.data / "public"
    before = {path: path.stat().st_mtime_ns for path in public.rglob("*") if path.is_file()}
    setting = "TIMESTAMPER_KEY" if role == "timestamp" else f"TUF_{role.upper()}_KEY"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"COUNTERMARK_{setting}", OTHER)
        patch.setenv("COUNTERMARK_REGISTRY_BASE_URL", up.url)
        argv = [sys.executable, "-m", "countermark_server.cli", "work", "tufrepo", "--data", str(up.data)]
        if process == "timestamper":
            argv = [sys.executable, "-m", "countermark_server.timestamper", "--data", str(up.data)]
            argv += ["--listen", "127.0.0.1:0"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 7, done.stdout + done.stderr
    assert f"delegates {role} to key" in done.stderr
    said = set(re.findall(r"[0-9a-f]{64}", done.stderr.partition("delegates")[2]))
    assert len(said) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
