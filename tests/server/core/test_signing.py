"""Signing: online keys open with the right passphrase only, and each for its own work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from countermark import keyfile
from countermark.errors import UsageError
from countermark.statement import Statement, open_envelope, sign
from countermark.tlog.checkpoint import Checkpoint, open_log_checkpoint
from countermark.tlog.merkle import EMPTY_ROOT
from countermark.tlog.note import sign_note
from countermark_server import signing
from countermark_server.settings import Registry, Settings

NO_VARIABLES: dict[str, str] = {}


def write_key(data: Path, name: str, key: keyfile.PrivateKey, passphrase: bytes = b"secret") -> None:
    path = signing.key_path(data, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(keyfile.encrypt(key, passphrase, name=name, salt=os.urandom(16), n=1024))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "passphrase").write_bytes(b"secret\n")
    write_key(tmp_path, "log-ed25519", ed25519.Ed25519PrivateKey.generate())
    write_key(tmp_path, "log-mldsa44", mldsa.MLDSA44PrivateKey.generate())
    write_key(tmp_path, "registry", ed25519.Ed25519PrivateKey.generate())
    write_key(tmp_path, "bins", ed25519.Ed25519PrivateKey.generate())
    return Settings(tmp_path, registry=Registry(origin="log.test/x"))


def test_the_log_signs_with_both_keys(settings: Settings) -> None:
    """A checkpoint signed by the pair opens under the pair's vkeys."""
    signers = signing.log_signers(settings, NO_VARIABLES)
    note = sign_note(Checkpoint("log.test/x", 0, EMPTY_ROOT).text(), signers, time=7).format()
    opened = open_log_checkpoint(note, [signer.vkey for signer in signers])
    assert (opened.origin, opened.size) == ("log.test/x", 0)


def test_a_role_signs_statements(settings: Settings) -> None:
    """The public half read without a passphrase verifies what the role signed."""
    signer = signing.role_signer(settings, "registry", NO_VARIABLES)
    envelope = sign(Statement.about("project:acme", "yank", {"project": "acme"}), signer)
    keys = {signer.keyid: signing.public_key(settings.data, "registry")}
    assert open_envelope(envelope, keys).keyids == (signer.keyid,)


def test_the_variable_wins_over_the_passphrase_file(settings: Settings) -> None:
    """A wrong passphrase from the environment is not silently replaced by the right one on disk."""
    with pytest.raises(UsageError, match="passphrase"):
        signing.load_key(settings.data, "registry", {signing.PASSPHRASE_VARIABLE: "wrong"})
    (settings.data / "passphrase").unlink()
    signing.load_key(settings.data, "registry", {signing.PASSPHRASE_VARIABLE: "secret"})
    with pytest.raises(UsageError, match="no passphrase"):
        signing.load_key(settings.data, "registry", NO_VARIABLES)


@pytest.mark.parametrize("role", ["root", "targets", "trust", "index", "authority", ""])
def test_no_offline_role_signs_here(settings: Settings, role: str) -> None:
    """Asking for an offline role's signer is refused before any file is looked for."""
    with pytest.raises(UsageError):
        signing.role_signer(settings, role, NO_VARIABLES)


def test_swapped_log_keys_are_refused(settings: Settings) -> None:
    """The Ed25519 file must hold an Ed25519 key, the ML-DSA file an ML-DSA key."""
    write_key(settings.data, "log-mldsa44", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(UsageError, match="ML-DSA-44"):
        signing.log_signers(settings, NO_VARIABLES)


def test_a_missing_key_says_what_makes_it(settings: Settings) -> None:
    """The hint names `init`."""
    with pytest.raises(UsageError) as refused:
        signing.role_signer(settings, "scanner", NO_VARIABLES)
    assert "init" in str(refused.value.hint)
