"""Tokens made of software, in a folder of the test: SoftHSM2, as scripts/components.sh brings it.

SoftHSM keeps its tokens in files, so it is for tests and rehearsals only; it speaks PKCS#11 as a device does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

COMPONENTS = Path(__file__).resolve().parent.parent / ".work" / "components"
PIN = "1234"


def library() -> Path:
    """SoftHSM's PKCS#11 library."""
    rooms = [Path("/usr/lib/softhsm"), COMPONENTS / "usr/lib/softhsm"]
    found = [room / "libsofthsm2.so" for room in rooms if (room / "libsofthsm2.so").exists()]
    assert found, "SoftHSM is missing; scripts/components.sh softhsm fetches it"
    return found[0]


class SoftHsm:
    """A drawer of tokens; `environment` is what a process needs to see them."""

    def __init__(self, folder: Path) -> None:
        tokens = folder / "tokens"
        tokens.mkdir(parents=True)
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment: Mapping[str, str] = os.environ | {
            "SOFTHSM2_CONF": str(config),
            "PYKCS11LIB": str(library()),
        }

    def token(self, label: str, *, pin: str = PIN) -> None:
        """Initialise one more token."""
        program = COMPONENTS / "bin" / "softhsm2-util"
        command = [program, "--module", library(), "--init-token", "--free", "--label", label]
        subprocess.run(
            [*command, "--so-pin", "87654321", "--pin", pin],
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=60,
        )
