"""A publisher's key on a PKCS#11 token (SoftHSM): it signs; a wrong PIN or another key there signs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.softhsm import PIN, SoftHsm

MAKE = "from countermark import tokens; tokens.generate(tokens.Place.parse({uri!r}), {pin!r}, name='lin')"
SIGN = """
import json, sys
from pathlib import Path
from countermark import signer
from countermark.statement import Statement, open_envelope, sign
key = signer.load_key(Path(sys.argv[1]), "publisher")
made = signer.open_signer(key, environment={"COUNTERMARK_PIN": sys.argv[2]})
statement = Statement.about("project:acme", "owner", {"account": "ab" * 16, "action": "add", "namespace": "",
    "origin": "registry.test/log", "prev": None, "project": "acme", "role": "owner"})
opened = open_envelope(sign(statement, made), {key.keyid: key.file.public_key})
print(json.dumps(opened.keyids))
"""


class Bench:
    """A machine with a drawer of tokens."""

    def __init__(self, folder: Path) -> None:
        self.drawer, self.home = SoftHsm(folder / "drawer"), folder / "home"

    def make(self, uri: str) -> None:
        assert self.run(sys.executable, "-c", MAKE.format(uri=uri, pin=PIN)).returncode == 0

    def sign(self, pin: str = PIN) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", SIGN, str(self.home / "keys"), pin)

    def key(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "countermark", "key", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.drawer.environment, "COUNTERMARK_HOME": str(self.home)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.mark.parametrize("uri", ["hsm:1?label=lin", "pkcs11ed:1?label=lin"])
def test_a_key_on_a_token_signs(tmp_path: Path, uri: str) -> None:
    """`key add URI`, then every command that takes `--key`; the PIN is asked for, and tried once."""
    bench = Bench(tmp_path)
    bench.drawer.token("lin")
    assert bench.key("add", uri).returncode == 2  # nothing is there yet
    bench.make(uri)
    added = bench.key("add", uri, "--json")
    assert added.returncode == 0, added.stderr
    document = json.loads(added.stdout)
    assert document["where"] == uri
    signed = bench.sign()
    assert signed.returncode == 0, signed.stderr
    assert json.loads(signed.stdout) == [document["keyid"]]
    assert "wrong PIN for token 'lin'" in bench.sign("4321").stderr


def test_another_key_in_the_same_place_signs_nothing(tmp_path: Path) -> None:
    """A token that was swapped for one of the same label: both key ids are named."""
    bench = Bench(tmp_path)
    uri = "pkcs11ed:1?label=lin"
    bench.drawer.token("lin")
    bench.make(uri)
    document = json.loads(bench.key("add", uri, "--json").stdout)
    for token in (tmp_path / "drawer" / "tokens").iterdir():
        token.rename(tmp_path / "taken-out")
    bench.drawer.token("lin")
    bench.make(uri)
    said = bench.sign()
    assert said.returncode != 0 and f"and publisher is {document['keyid'][:16]}" in said.stderr
