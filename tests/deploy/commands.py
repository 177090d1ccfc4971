"""Whether a command that a unit or a container starts is one of ours, as its own `--help` says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from countermark_server.settings import SECTIONS, Settings, load

BIN = Path(sys.executable).parent
OTHERS = {"COUNTERMARK_DATA", "COUNTERMARK_KEY_PASSPHRASE"}


@cache
def help_of(*words: str) -> tuple[int, str]:
    """What a program of this environment says about itself, or about one of its commands."""
    done = subprocess.run(
        [BIN / words[0], *words[1:], "--help"],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def wrong_with(command: Sequence[str]) -> list[str]:
    """What is wrong with a command line: an unknown program, command, option or application."""
    program = Path(command[0]).name
    if not (BIN / program).exists():
        return [f"no program {program}"]
    words, rest = [program], list(command[1:])
    if rest[:1] == ["-m"]:
        words, rest = [program, *rest[:2]], rest[2:]
    while rest and program.startswith("countermark") and not rest[0].startswith("-"):
        if not _names(help_of(*words)[1], rest[0]):
            return [f"{' '.join(words)} has no command {rest[0]}"]
        words.append(rest.pop(0))
    code, said = help_of(*words)
    if code != 0:
        return [f"{' '.join(words)}: {said.strip()[-120:]}"]
    wrong = [
        f"{' '.join(words)} has no option {word}"
        for word in rest
        if word.startswith("--") and not _names(said, word)
    ]
    if program in ("gunicorn", "granian"):
        application = re.fullmatch(r"([\w.]+):\w+", rest[-1])
        if application is None or importlib.util.find_spec(application[1]) is None:
            wrong.append(f"{program} is given no application: {rest[-1]}")
    return wrong


def _names(help_text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", help_text) is not None


def wrong_settings(environment: dict[str, str]) -> list[str]:
    """Variables of ours that name no setting, or a value that the settings refuse."""
    known = {
        f"COUNTERMARK_{section}_{field}".upper()
        for section, cls in SECTIONS.items()
        for field in cls.__dataclass_fields__
    }
    wrong = [name for name in environment if name.startswith("COUNTERMARK_") and name not in known | OTHERS]
    settings_of(environment)
    return wrong


def settings_of(environment: dict[str, str]) -> Settings:
    """The settings that these variables give."""
    return load(Path("nowhere"), environment)
