"""Tokens made of software, for rehearsals: SoftHSM in a folder that is thrown away.

    with tokens(folder) as drawer:
        drawer.token("ada")             # afterwards hsm:1?label=ada may hold a key

SoftHSM keeps its tokens in files that anybody may copy, so no key of a real ceremony is ever on one. It speaks
PKCS#11 as a device does, PIN included. Nothing of this machine changes: its configuration is a file in the folder. A
process sees the tokens that were there when it first looked, so all are made before any is used.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from countermark.errors import UsageError
from countermark.tokens import LIBRARY_VARIABLE

PIN = "1234"
CONFIGURATION = "SOFTHSM2_CONF"
PROGRAM = "softhsm2-util"
SECONDS = 60.0  # to make a token; it takes a few milliseconds
_PLACES = ("lib/softhsm", "lib64/pkcs11", "lib64/softhsm", "lib/pkcs11")  # below the prefix of the program


@dataclass(frozen=True)
class Drawer:
    """Where tokens can be made."""

    program: str
    library: str

    def token(self, label: str) -> None:
        """One more empty token. UsageError: SoftHSM refused."""
        command = [self.program, "--module", self.library, "--init-token", "--free", "--label", label]
        done = subprocess.run(
            [*command, "--so-pin", f"{PIN}{PIN}", "--pin", PIN],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise UsageError(f"{PROGRAM} made no token {label!r}: {(done.stderr or done.stdout).strip()}")


def find() -> Drawer:
    """SoftHSM on this machine. UsageError: it is not installed, with what to install."""
    if importlib.util.find_spec("pkcs11") is None:
        raise UsageError(
            "a rehearsal with tokens needs python-pkcs11, which is not installed",
            hint="install the extra `tokens` together with the three distributions",
        )
    program = shutil.which(PROGRAM)
    if program is None:
        raise UsageError(
            f"a rehearsal with tokens needs SoftHSM, and there is no {PROGRAM} on the PATH",
            hint="install softhsm2 (Debian, Ubuntu) or softhsm (Fedora, Homebrew) before you disconnect",
        )
    prefixes = [Path(program).resolve().parents[1], Path("/usr"), Path("/usr/local")]
    found = [prefix / place / "libsofthsm2.so" for prefix in prefixes for place in _PLACES]
    library = next((path for path in found if path.exists()), None)
    if library is None:
        raise UsageError(
            f"{PROGRAM} is installed and its library libsofthsm2.so is not",
            hint="install libsofthsm2 (Debian, Ubuntu) or softhsm (Fedora, Homebrew)",
        )
    return Drawer(program, str(library))


@contextmanager
def tokens(folder: Path) -> Iterator[Drawer]:
    """A drawer in this folder, which this process and its children see until the end."""
    drawer = find()
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    ours = {CONFIGURATION: str(configuration), LIBRARY_VARIABLE: drawer.library}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield drawer
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
