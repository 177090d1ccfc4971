"""A publisher's key in a cloud service, against stand-ins (tests/clouds says what those show)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.client.publish.test_token_key import SIGN
from tests.server.core.test_clouds import ROOT, URIS


class Machine:
    """A machine whose cloud holds one P-256 and one Ed25519 key."""

    def __init__(self, folder: Path) -> None:
        self.clouds, self.home = folder / "clouds", folder / "home"
        self.clouds.mkdir()
        self.renew()

    def renew(self) -> None:
        """Other keys, under the same names."""
        for name, key in (
            ("bins", ec.generate_private_key(ec.SECP256R1())),
            ("bins-ed", ed25519.Ed25519PrivateKey.generate()),
        ):
            raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (self.clouds / f"{name}.pem").write_bytes(raw)

    def run(self, *command: str, libraries: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "COUNTERMARK_HOME": str(self.home),
            "COUNTERMARK_TEST_CLOUDS": str(self.clouds),
            "PYTHONPATH": str(ROOT / "tests/clouds") if libraries else "",
        }
        argv = [sys.executable, *command]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def add(self, uri: str, **options: bool) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "countermark", "key", "add", uri, "--json", **options)

    def sign(self) -> subprocess.CompletedProcess[str]:
        return self.run("-c", SIGN, str(self.home / "keys"), "")


@pytest.mark.parametrize("service", URIS)
def test_a_key_in_a_service_signs_statements(tmp_path: Path, service: str) -> None:
    """Named once; then down, and then replaced by another behind its owner's back."""
    machine = Machine(tmp_path)
    uri = URIS[service].format("bins-ed" if service == "vault" else "bins")
    missing = machine.add(uri, libraries=False)
    assert missing.returncode == 2, missing.stderr
    assert f"pip install './client[{service}]' ./server ./keys-ceremony" in missing.stderr
    added = machine.add(uri)
    assert added.returncode == 0, added.stderr
    document = json.loads(added.stdout)
    signed = machine.sign()
    assert signed.returncode == 0 and json.loads(signed.stdout) == [document["keyid"]], signed.stderr
    (machine.clouds / "down").touch()
    assert "connection refused" in machine.sign().stderr
    (machine.clouds / "down").unlink()
    machine.renew()
    assert f"is not by key {document['keyid'][:16]}" in machine.sign().stderr
