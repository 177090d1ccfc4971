"""The programs we are measured beside, `sigstore` and `pypi-attestations`, and a real attestation for each to verify.

They live in an environment of their own, .work/bench-peers, installed from requirements/bench.txt by hash. What
they verify are files that pypi-attestations ships for its own tests inside its source distribution, which the
same requirements name by hash: real releases, signed by real CI runs. Both programs bring the root they start
from, so both verify completely and offline: certificate chain, log inclusion, signature, identity and digest.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent / "requirements/bench.txt"
FOLDER = HERE.parent / ".work/bench-peers"

_RELEASES = "https://github.com/trailofbits/{}/.github/workflows/release.yml@refs/tags/{}"
_ISSUER = "https://token.actions.githubusercontent.com"
_SIGSTORE = "pypi_attestation_models-0.0.4a2.tar.gz"
_PYPI = "pypi_attestations-0.0.19.tar.gz"
_ASSETS = (_SIGSTORE, f"{_SIGSTORE}.sigstore", _PYPI, f"{_PYPI}.publish.attestation")


@dataclass(frozen=True)
class Peers:
    """One command each, that verifies one file offline and exits 0 when it is good."""

    sigstore: list[str]
    pypi_attestations: list[str]


def install() -> Peers:
    """Both programs and what they verify; does nothing when it was done before."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = FOLDER / "installed"
    if not stamp.exists() or stamp.read_text("utf-8") != digest:
        _install()
        stamp.write_text(digest, encoding="utf-8")
    assets, programs = FOLDER / "assets", FOLDER / "bin"
    sigstore = [
        str(programs / "sigstore"), "verify", "identity", "--offline",
        "--bundle", str(assets / f"{_SIGSTORE}.sigstore"),
        "--cert-identity", _RELEASES.format("pypi-attestation-models", "v0.0.4a2"),
        "--cert-oidc-issuer", _ISSUER, str(assets / _SIGSTORE),
    ]  # fmt: skip
    attestations = [
        str(programs / "pypi-attestations"), "verify", "attestation", "--offline",
        "--identity", _RELEASES.format("pypi-attestations", "v0.0.19"), str(assets / _PYPI),
    ]  # fmt: skip
    return Peers(sigstore, attestations)


def _install() -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
    pip = [str(FOLDER / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    locked = ["--require-hashes", "-r", str(REQUIREMENTS)]
    subprocess.run([*pip, "install", *locked], check=True)
    # The source distribution holds the test assets. Its metadata is asked for with the locked build tools.
    own = FOLDER / "source.txt"
    own.write_text(_block("pypi-attestations"), encoding="utf-8")
    source = ["--no-deps", "--no-binary", "pypi-attestations", "--no-build-isolation", "--dest", str(FOLDER)]
    subprocess.run([*pip, "download", *source, "--require-hashes", "-r", str(own)], check=True)
    (FOLDER / "assets").mkdir()
    (archive,) = FOLDER.glob("pypi_attestations-*.tar.gz")
    with tarfile.open(archive) as members:
        top = archive.name.removesuffix(".tar.gz")
        for name in _ASSETS:
            member = members.extractfile(f"{top}/test/assets/{name}")
            assert member is not None, f"{archive.name} holds no test/assets/{name}"
            (FOLDER / "assets" / name).write_bytes(member.read())


def _block(name: str) -> str:
    """The lines of one requirement: its version and its hashes."""
    lines: list[str] = []
    ours = False
    for line in REQUIREMENTS.read_text("utf-8").splitlines():
        if not line.startswith(" "):
            ours = line.startswith(f"{name}==")
        if ours:
            lines.append(line)
    return "\n".join(lines) + "\n"
