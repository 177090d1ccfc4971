"""A file that an import published, as its leaf describes it: a manifest's line, and nobody's signature.

    {"filename":"acme-1.0.tar.gz","import":{"index":9,"line":1,"rest":"77ab..."},"length":1421,"passed":null,
     "project":"acme","sha256":"5891...","version":"1.0"}

This is the registry's part of a `publish` entry whose envelope is null. `import` names the import entry, the line's
number from 1, and the link of the lines behind it (manifest.py). `passed` says why the line was passed over, if it
was: such a leaf publishes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from countermark.errors import MalformedError
from countermark.manifest import Line
from countermark.statement import is_sha256
from countermark.values import dataclass

# The name is taken; the project waits for moderators, or signs its files.
PASSED: Final = frozenset({"file-exists", "project-frozen", "signature-required"})
_MEMBERS: Final = {"filename", "import", "length", "passed", "project", "sha256", "version"}


@dataclass(frozen=True)
class Imported:
    """A manifest's line as a leaf holds it: which import's, which line, and what follows. Signed by nobody."""

    line: Line
    index: int  # of the import entry
    number: int  # of the line, from 1
    rest: str  # link of the lines behind it
    passed: str | None  # why the line published nothing; None: it did

    @classmethod
    def parse(cls, registry: Mapping[str, Any]) -> Imported:
        """From the registry's part of a leaf."""
        where = registry.get("import")
        if (
            registry.keys() != _MEMBERS
            or type(where) is not dict
            or where.keys() != {"index", "line", "rest"}
        ):
            raise MalformedError(
                f"imported publish entry's registry part must have exactly {', '.join(sorted(_MEMBERS))},"
                " and its import index, line and rest"
            )
        names = [registry[name] for name in ("project", "version", "filename", "sha256")]
        if any(type(name) is not str for name in names):
            raise MalformedError("imported publish entry's names and digest must be strings")
        index, number, passed = where["index"], where["line"], registry["passed"]
        if type(index) is not int or type(number) is not int or number < 1 or not is_sha256(where["rest"]):
            raise MalformedError("imported publish entry's import must be an index, a line from 1 and a link")
        if passed is not None and (type(passed) is not str or passed not in PASSED):
            raise MalformedError(f"imported publish entry has an illegal passed: {str(passed)[:80]!r}")
        line = Line(names[0], names[1], names[2], names[3], registry["length"]).check()
        return cls(line, index, number, where["rest"], passed)

    def registry(self) -> dict[str, Any]:
        """The registry's part of the leaf."""
        return {
            "filename": self.line.filename,
            "import": {"index": self.index, "line": self.number, "rest": self.rest},
            "length": self.line.length,
            "passed": self.passed,
            "project": self.line.project,
            "sha256": self.line.sha256,
            "version": self.line.version,
        }

    def leaf(self, time: int) -> bytes:
        """The whole leaf. No member of a line needs an escape in JSON, so this is its canonical form."""
        line, passed = self.line, "null" if self.passed is None else f'"{self.passed}"'
        return (
            f'{{"envelope":null,"registry":{{"filename":"{line.filename}",'
            f'"import":{{"index":{self.index},"line":{self.number},"rest":"{self.rest}"}},'
            f'"length":{line.length},"passed":{passed},"project":"{line.project}",'
            f'"sha256":"{line.sha256}","version":"{line.version}"}},'
            f'"time":{time},"type":"publish","v":1}}'
        ).encode()
