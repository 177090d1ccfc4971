"""Online TUF keys by URI: files and tokens open, and what is not the key that metadata names is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from countermark import keyfile
from countermark.errors import EvidenceError, UsageError
from countermark_server import onlinekeys
from countermark_server.settings import Settings, Timestamper, Tuf
from tests.softhsm import PIN, SoftHsm

NO_VARIABLES: dict[str, str] = {}
PROGRAM = """
import sys
from pathlib import Path
from countermark.errors import CountermarkError
from countermark_server import onlinekeys
from countermark_server.settings import load
try:
    for signer in onlinekeys.open_keys(load(Path(sys.argv[1])), "timestamp"):
        signer.public_key.verify_signature(signer.sign(b"timestamp"), b"timestamp")
        print(signer.public_key.keyid, signer.public_key.scheme)
except CountermarkError as error:
    print(f"{type(error).__name__}: {error}; {error.hint}")
    sys.exit(error.exit_code)
"""


def write_key(path: Path, key: keyfile.PrivateKey) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(keyfile.encrypt(key, b"secret", name=path.stem, salt=os.urandom(16), n=1024))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_bytes(b"secret\n")
    write_key(tmp_path / "keys/bins.json", ed25519.Ed25519PrivateKey.generate())
    write_key(tmp_path / "keys/next.json", ed25519.Ed25519PrivateKey.generate())
    return tmp_path


def with_bins(data: Path, uris: str) -> Settings:
    return Settings(data, tuf=replace(Tuf(), bins_key=uris))


def test_every_key_of_a_role_opens_in_the_order_of_the_setting(data: Path) -> None:
    """One while one is enough, two while one follows another; public halves need no passphrase."""
    settings = with_bins(data, "keyfile:keys/bins.json  keyfile:keys/next.json")
    signers = onlinekeys.open_keys(settings, "bins", NO_VARIABLES)
    shown = onlinekeys.public_keys(settings, "bins")
    assert [signer.public_key for signer in signers] == list(shown) and len(shown) == 2
    for signer in signers:
        signer.public_key.verify_signature(signer.sign(b"bytes"), b"bytes")
    (data / "passphrase").unlink()
    assert onlinekeys.public_keys(settings, "bins") == shown


@pytest.mark.parametrize(
    ("uris", "says"),
    [
        ("", "at least one key"),
        ("keyfile:keys/bins.json keyfile:keys/bins.json", "none twice"),
        ("keys/bins.json", "names no key we can use"),
        ("file2:keys/bins.json", "a URI begins with|names no key we can use"),
        ("keyfile:keys/other.json", "needs .*other.json: No such file"),
        ("hsm:1", "names no key on a token"),
    ],
)
def test_a_setting_that_names_no_key_is_refused(data: Path, uris: str, says: str) -> None:
    """UsageError, before anything is opened."""
    with pytest.raises(UsageError, match=says):
        onlinekeys.open_keys(with_bins(data, uris), "bins", NO_VARIABLES)


def test_a_kind_of_key_that_clients_do_not_verify_is_refused(data: Path) -> None:
    """ML-DSA signs checkpoints, never TUF metadata."""
    write_key(data / "keys/bins.json", mldsa.MLDSA44PrivateKey.generate())
    with pytest.raises(UsageError, match="kind"):
        onlinekeys.open_keys(with_bins(data, "keyfile:keys/bins.json"), "bins", NO_VARIABLES)


@pytest.mark.parametrize("role", ["root", "targets", "trust", "index", "authority", ""])
def test_no_offline_role_signs_here(data: Path, role: str) -> None:
    """Asking for an offline role's signer is refused before any file is looked for."""
    with pytest.raises(UsageError, match="ceremony"):
        onlinekeys.open_keys(Settings(data), role, NO_VARIABLES)


def test_a_key_that_metadata_does_not_name_is_refused_with_both_key_ids(data: Path) -> None:
    """The one that is named is chosen, wherever it stands; none: both ids are said."""
    signers = onlinekeys.open_keys(
        with_bins(data, "keyfile:keys/bins.json keyfile:keys/next.json"), "bins", NO_VARIABLES
    )
    first, second = (signer.public_key.keyid for signer in signers)
    assert onlinekeys.holder_of("bins", signers, [second], "index 1") is signers[1]
    with pytest.raises(EvidenceError) as refused:
        onlinekeys.holder_of("bins", signers[:1], [second], "index 1")
    assert first in str(refused.value) and second in str(refused.value)
    assert "index 1 delegates bins to key" in str(refused.value)


def opens(data: Path, hsm: SoftHsm, uris: str) -> subprocess.CompletedProcess[str]:
    env = {**hsm.environment, "COUNTERMARK_TIMESTAMPER_KEY": uris}
    argv = [sys.executable, "-c", PROGRAM, str(data)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_keys_on_tokens_open_with_the_pin_of_a_file(data: Path, tmp_path: Path) -> None:
    """ECDSA and Ed25519 on SoftHSM; a wrong PIN, a missing one and a missing token are sentences."""
    hsm = SoftHsm(tmp_path / "hsm")
    hsm.token("online")
    uris = "hsm:1?label=online pkcs11ed:2?label=online"
    make = "import sys; from countermark import tokens\nfor uri in sys.argv[1:]: "
    make += f"tokens.generate(tokens.Place.parse(uri), '{PIN}', name='x')"
    subprocess.run([sys.executable, "-c", make, *uris.split()], env=hsm.environment, check=True, timeout=60)

    done = opens(data, hsm, uris)
    assert done.returncode == 2 and "timestamper/pin: No such file" in done.stdout
    (data / "timestamper").mkdir()
    (data / "timestamper/pin").write_text("9999\n")
    done = opens(data, hsm, uris)
    assert done.returncode == 2 and "wrong PIN" in done.stdout
    (data / "timestamper/pin").write_text(f"{PIN}\n")
    done = opens(data, hsm, uris)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["ecdsa-sha2-nistp256", "ed25519"]
    done = opens(data, hsm, "hsm:1?label=elsewhere")
    assert done.returncode == 2 and "no token labelled 'elsewhere'" in done.stdout


def test_the_timestamper_says_where_its_key_is(data: Path) -> None:
    """Each role has a setting of its own, so that its key can be on a machine of its own."""
    assert {onlinekeys.setting_of(role) for role in ("bins", "snapshot", "timestamp")} == {
        "tuf.bins_key",
        "tuf.snapshot_key",
        "timestamper.key",
    }
    settings = Settings(data, timestamper=replace(Timestamper(), key="keyfile:keys/next.json"))
    assert onlinekeys.uris(settings, "timestamp") == ("keyfile:keys/next.json",)
