"""Online keys in cloud services: our code and securesystemslib's against stand-ins of the client libraries.

Not run against the live services: tests/clouds/ says what these show.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROOT = Path(__file__).resolve().parents[3]
GCP = "gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/{}/cryptoKeyVersions/1"
URIS = {
    "aws": "awskms:arn:aws:kms:eu-west-1:111122223333:key/{}",
    "gcp": GCP,
    "azure": "azurekms://registry.vault.azure.net/keys/{}/0f",
    "vault": "hv:{}/2",
}
OPENS = """
import sys
from pathlib import Path
from countermark.cloudkeys import key_spki
from countermark.errors import CountermarkError
from countermark_server import onlinekeys
from countermark_server.settings import load
settings = load(Path(sys.argv[1]))
try:
    (shown,) = onlinekeys.public_keys(settings, "bins")
    (signer,) = onlinekeys.open_keys(settings, "bins")
    shown.verify_signature(signer.sign(b"metadata"), b"metadata")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).touch()
        signer.sign(b"metadata")
    print(shown.keyid, shown.scheme, key_spki(shown).hex())
except CountermarkError as error:
    print(f"{type(error).__name__}: {error}\\nhint: {error.hint}")
    sys.exit(error.exit_code)
"""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder of keys that the stand-ins hold: one of each kind, and what an attacker put in its place."""
    folder = tmp_path / "clouds"
    folder.mkdir()
    made = {
        "bins": ec.generate_private_key(ec.SECP256R1()),
        "bins-ed": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in made.items():
        raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.pem").write_bytes(raw)
    return folder


def opens(keys: Path, uri: str, *arguments: str, clouds: bool = True) -> subprocess.CompletedProcess[str]:
    """A process of a registry whose bins key is there."""
    env = {
        **os.environ,
        "COUNTERMARK_TUF_BINS_KEY": uri,
        "COUNTERMARK_TEST_CLOUDS": str(keys),
        "PYTHONPATH": str(ROOT / "tests/clouds") if clouds else "",
    }
    argv = [sys.executable, "-c", OPENS, str(keys.parent), *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("service", URIS)
def test_a_key_in_a_service_signs_what_its_public_half_verifies(keys: Path, service: str) -> None:
    """Public half, key id and signature agree, over the calls that securesystemslib makes, and no other."""
    name = "bins-ed" if service == "vault" else "bins"
    done = opens(keys, URIS[service].format(name))
    assert done.returncode == 0, done.stdout + done.stderr
    scheme = done.stdout.split()[1]
    assert scheme == ("ed25519" if service == "vault" else "ecdsa-sha2-nistp256")
    calls = [line.split()[1] for line in (keys / "calls").read_text().splitlines()]
    reads = {"aws": "GetPublicKey", "gcp": "GetPublicKey", "azure": "GetKey", "vault": "ReadKey"}[service]
    signs = {"aws": "Sign", "gcp": "AsymmetricSign", "azure": "Sign", "vault": "SignData"}[service]
    assert calls == [reads, reads, signs, signs]  # asked for twice by this test; a probe, then metadata


def test_one_key_has_one_key_id_in_every_service(keys: Path) -> None:
    """However a service spells a PEM, the key id is the one that tuf gives this key."""
    said = {opens(keys, URIS[service].format("bins")).stdout for service in ("aws", "gcp", "azure")}
    assert len(said) == 1


@pytest.mark.parametrize("service", URIS)
def test_a_missing_client_library_names_the_extra(keys: Path, service: str) -> None:
    """Exit 2, the setting, the URI and the command that brings the library."""
    uri = URIS[service].format("bins")
    done = opens(keys, uri, clouds=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"tuf.bins_key is {uri}" in done.stdout
    assert f"pip install ./client './server[{service}]' ./keys-ceremony" in done.stdout
    assert not (keys / "calls").exists()


@pytest.mark.parametrize("service", URIS)
def test_a_service_that_does_not_answer_is_an_outage(keys: Path, service: str) -> None:
    """Exit 3, worth another try: at the start, and in the middle of the work."""
    uri = URIS[service].format("bins-ed" if service == "vault" else "bins")
    (keys / "down").touch()
    done = opens(keys, uri)
    assert done.returncode == 3 and "connection refused" in done.stdout, done.stdout + done.stderr
    (keys / "down").unlink()
    done = opens(keys, uri, str(keys / "down"))
    assert done.returncode == 3 and f"{uri} does not sign" in done.stdout, done.stdout + done.stderr


def test_an_older_version_is_not_taken_for_the_newest(keys: Path) -> None:
    """A service that shows version 2 does not open a URI of version 1."""
    done = opens(keys, "hv:bins-ed/1")
    assert done.returncode == 2 and "the service shows hv:bins-ed/2" in done.stdout
    done = opens(keys, "azurekms://registry.vault.azure.net/keys/bins/0e")
    assert done.returncode == 2 and "keys/bins/0f" in done.stdout
