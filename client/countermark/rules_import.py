"""Rules about imports: existing history under one `import` entry, a leaf for each line of its manifest.

    #9   import   manifest, first link of its chain, count 3          signed by the registry
    #10  publish  import #9 line 1                                    no envelope: nobody signed it
    #11  publish  (somebody's live upload; others may come in between)
    #12  publish  import #9 line 2, passed: file-exists               the live upload was faster
    #13  publish  import #9 line 3                                    the import is complete

`import` in ("log",) says what must come next: {"chain": link of the next line, "head": leaf hash of the newest
import entry, "index": its index, "left": lines still to come, "line": number of the next, "manifest": digest of the
manifest's blob}. A log that never
imported anything has no such member. Lines come in the manifest's order and each of them gets a leaf, so `count`
is exact. A line whose name is taken meanwhile, or whose project signs, requires approvals or is frozen, is *passed
over*: its leaf says so and publishes nothing, and says so only if it is true. So nothing that anybody else logs can
stop an import, and no import can bring an unsigned file into a project that signs.

Imports form one chain of `prev`. One that follows an import with lines still to come ends it there: the way out
when a manifest is lost, in the open.

An imported project that nobody owned has no owner. Nobody can publish to it or enrol a key, and the registry
gives it its first owner by an `owner` entry (rules_keys.py).
"""

from __future__ import annotations

from countermark.entry import Entry
from countermark.imported import Imported
from countermark.manifest import Line, file_key, link
from countermark.rules_state import (
    LOG,
    Broken,
    Changes,
    Key,
    State,
    View,
    new_file,
    new_holder,
    project_key,
    settled,
)
from countermark.rules_step import REGISTRY, Step


def import_(step: Step) -> None:
    """Open an import. Its lines follow; one that is still open ends here."""
    step.one_signer(roles=[REGISTRY])
    log = step.read(LOG)
    assert log is not None  # apply has read it
    before = log.get("import")
    step.check_prev(None if before is None else before["head"])
    opened = {
        "chain": step.predicate["chain_sha256"],
        "head": step.leaf_hash,
        "index": step.index,
        "left": step.predicate["count"],
        "line": 1,
        "manifest": step.predicate["manifest_sha256"],
    }
    step.write(LOG, {**log, "import": opened})


def line_keys(imported: Imported) -> frozenset[Key]:
    """All state that a line may touch."""
    line = imported.line
    return frozenset({LOG, file_key(line), project_key("", line.project)})


def publish_line(view: View, entry: Entry, log: State) -> Changes | Broken:
    """The next line of the open import, and no other."""
    imported, opened = entry.imported, log.get("import")
    assert imported is not None
    if opened is None or opened["left"] == 0:
        return Broken("import-closed", "a publish without a signature goes with an open import only", "log")
    said, due = (imported.index, imported.number), (opened["index"], opened["line"])
    if said != due:
        return Broken(
            "import-order",
            f"line {said[1]} of import #{said[0]}, not line {due[1]} of import #{due[0]}",
            "log",
        )
    if (found := link(imported.rest, imported.line.row)) != opened["chain"]:
        return Broken(
            "import-line",
            f"line {said[1]} of import #{said[0]} has the link {found}, the manifest's is {opened['chain']}",
            "log",
        )
    key = file_key(imported.line)
    project = view.get(project_key("", imported.line.project))
    passed = _why_passed(view.get(key), project, entry.time)
    if imported.passed != passed:
        return Broken(
            "import-passed", f"line {said[1]} says passed {imported.passed}, the rules say {passed}", "log"
        )
    writes: dict[Key, State | None] = {
        LOG: {
            **log,
            "import": {
                **opened,
                "chain": imported.rest,
                "left": opened["left"] - 1,
                "line": opened["line"] + 1,
            },
            "size": log["size"] + 1,
            "time": entry.time,
        }
    }
    if passed is None:
        writes[key] = {**_new_file(imported, key, entry, log["size"]), "import": imported.index}
        if project is None:
            writes[project_key("", imported.line.project)] = new_holder({})
    return Changes(writes)


def why_passed_over(view: View, line: Line, time: int) -> str | None:
    """Why this line would publish nothing at `time`, as its leaf must say; None: it would publish."""
    return _why_passed(view.get(file_key(line)), view.get(project_key("", line.project)), time)


def _why_passed(file: State | None, project: State | None, time: int) -> str | None:
    if file is not None:
        return "file-exists"
    if project is None:
        return None
    project = settled(project, time)
    if project["frozen"] is not None:
        return "project-frozen"
    return "signature-required" if project["signed"] or project.get("approvals") else None


def _new_file(imported: Imported, key: Key, entry: Entry, index: int) -> State:
    return new_file(
        key=key,
        filename=imported.line.filename,
        version=imported.line.version,
        sha256=imported.line.sha256,
        length=imported.line.length,
        index=index,
        leaf_hash=entry.leaf_hash.hex(),
        time=entry.time,
    )
