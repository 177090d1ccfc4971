"""Starters: the small programs that installers write so that a command of a package can be called by its name.

    [console_scripts]                     #!/srv/app/.venv/bin/python
    acme = acme.cli:main          ->      # -*- coding: utf-8 -*-
                                          import sys
                                          from acme.cli import main
                                          ...

They are in no wheel, so nobody signed or logged them; but for one entry point an installer writes one text, and there
are few installers. `entry_points` gives the texts, `interpreter` reads the first line.
"""

from __future__ import annotations

import configparser
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from countermark.values import dataclass

HEAD_BYTES = 4096  # the kernel reads less of a first line
LIST_MAX_BYTES = 1024 * 1024  # entry_points.txt
_ENTRY = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<object>[\w.]+)\s*(?:\[.*\])?", re.ASCII)
_SHEBANG = re.compile(
    rb"#!(?P<plain>[^\r\n]+)\r?\n|#!/bin/sh\n'''exec' (?P<long>\"[^\"\n]+\"|[^\s\"]+) \"\$0\" \"\$@\"\n' '''\n"
)
_PYTHON = re.compile(r"(?:python|pypy)w?[0-9.]*(?:\.exe)?")

# What follows the first line: pip (distlib), uv, and poetry (installer).
_TEXTS = (
    """# -*- coding: utf-8 -*-
import re
import sys
from {module} import {first}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({object}())
""",
    """# -*- coding: utf-8 -*-
import sys
from {module} import {first}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({object}())
""",
    """# -*- coding: utf-8 -*-
import re
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.argv[0] = re.sub(r"(-script\\.pyw|\\.exe)?$", "", sys.argv[0])
    sys.exit({object}())
""",
)


@dataclass(frozen=True)
class EntryPoint:
    """One command: its name, what it calls (`module:object`), and the texts that call it."""

    name: str
    target: str
    texts: tuple[bytes, ...]


def entry_points(wheel: zipfile.ZipFile, name: str) -> Iterator[EntryPoint]:
    """Everything that installers write a starter for, from the wheel's `entry_points.txt` of this name."""
    try:
        raw = wheel.open(name).read(LIST_MAX_BYTES).decode("utf-8", "replace")
    except KeyError:
        return
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        parser.read_string(raw)
    except configparser.Error:
        return  # no installer starts anything from it
    for group in ("console_scripts", "gui_scripts"):
        for starter, target in parser.items(group) if parser.has_section(group) else ():
            match = _ENTRY.fullmatch(target.strip())
            if match is not None and "/" not in starter and "\\" not in starter:
                yield EntryPoint(starter, f"{match['module']}:{match['object']}", _texts(**match.groupdict()))


def interpreter(head: bytes) -> tuple[Path | None, int]:
    """The program that the first line names, and the line's length; long paths take three lines of shell."""
    match = _SHEBANG.match(head)
    if match is None:
        return None, 0
    named = (match["long"] or match["plain"]).decode("utf-8", "replace").strip().strip('"')
    return Path(named), match.end()


def is_python(program: Path) -> bool:
    """Whether it is called like one."""
    return _PYTHON.fullmatch(program.name) is not None


def _texts(module: str, object: str) -> tuple[bytes, ...]:
    first = object.partition(".")[0]
    return tuple(text.format(module=module, object=object, first=first).encode() for text in _TEXTS)
