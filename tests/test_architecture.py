"""The import arrows of docs/architecture.md, asserted on every module with `ast`."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "client" / "countermark"
SERVER = ROOT / "server" / "countermark_server"
CEREMONY = ROOT / "keys-ceremony" / "countermark_ceremony"

# The client's floors, top to bottom: a module imports from lower floors, or from `SIDEWAYS` within its own.
FLOORS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"cli_verify", "cli_publish", "cli_policy"},
    {"cli_shared", "cli_words"},
    {"cli_parts"},
    {"commands_policy", "commands_shared", "commands_jobs"},
    {"commands_afterwards", "commands_configure", "commands_publish", "commands_tokens"},
    {
        "commands_audit",
        "commands_install",
        "commands_bundle",
        "commands_evidence",
        "commands_key",
        "commands_trust",
        "commands_witness",
    },
    {"library"},
    {"run", "environment", "reportfiles"},
    {"spots", "lockcheck"},
    {"installers", "configuring", "pinning"},
    {"poetryplan"},
    {"plans"},
    {"approving", "namespacefiles"},
    {"countersign"},
    {"accesstokens", "afterwards", "ahead", "ambient", "devicelogin", "jobs", "logonlypublish", "team"},
    {"publish", "bundling", "audit", "monitor", "mirror", "proxy", "witness", "evidence_replay"},
    {"audit_log", "audit_tuf", "audit_index", "audit_predecessor"},
    {"audit_bins"},
    {"audit_state"},
    {"audit_report"},
    {"offers", "proxyanswers"},
    {"projectstate"},
    {"actfile", "compare"},
    {"verify", "offline", "logonly", "logoffline", "evidence_check"},
    {"logged", "attested"},
    {"unapplied", "unlisted", "demanded", "lookahead"},
    {"matching", "namespaces", "claims"},
    {"withdrawals"},
    {"verified"},
    {"signature"},
    {"trust"},
    {"trustwalk", "moment"},
    {"tufclient"},
    {"snapshotfile", "binfiles"},
    {"timeline"},
    {"mirrors"},
    {"session"},
    {"logreader", "pins", "freshness"},
    {"policyfile", "policyview"},
    {
        "replay",
        "lockfile",
        "signer",
        "evidence",
        "clientpolicy",
        "witness_store",
        "filestore",
        "distribution",
        "installed",
    },
    {"prefetch"},
    {"keyreference"},
    {"fetch", "serving", "agent", "console", "folder"},
    {"httpbody", "patience", "disk", "credentials"},
    {"clientcerts"},
    {"secretstore"},
    {"logbundle"},
    {"bundle"},
    {"timestamp"},
    {
        "bins",
        "trustfile",
        "words",
        "keyfile",
        "simplepage",
        "predecessor",
        "tokens",
        "cloudkeys",
        "starters",
        "bytecode",
        "edits",
    },
    {"tufjson", "demands", "teams"},
    {"listing"},
    {"rules"},
    {"rules_files", "rules_import", "rules_keys"},
    {"rules_approve"},
    {"rules_ci"},
    {"rules_step"},
    {"rules_state"},
    {"entry"},
    {"place"},
    {"imported", "schema"},
    {"filelist", "manifest"},
    {"statement"},
    {"identities"},
    {"machine"},
    {"canonical", "names"},
    {"tlog"},
    {"errors", "limits"},
    {"values", "digest"},
]
SIDEWAYS = {("errors", "limits")}
STATIONS = {"upload", "log", "scan", "moderation", "tufrepo", "timestamper", "index", "accounts", "web"}
COMPOSITION = {"app", "worker", "cli", "cli_accounts", "cli_orgs", "cli_log", "console", "wsgi", "operate"}
# What the server may use of the client: formats, rules, and reading. Never a command engine.
SERVER_USES = {
    "tlog", "entry", "rules", "rules_approve", "rules_ci", "rules_import", "rules_state", "statement", "bundle",
    "tufjson", "replay", "fetch", "credentials",
    "trust", "timestamp", "listing", "manifest", "imported", "canonical", "names", "schema", "logreader", "serving",
    "bins", "trustfile", "words", "keyfile", "simplepage", "errors", "limits", "predecessor", "snapshotfile",
    "tokens", "cloudkeys", "machine", "actfile", "compare", "filelist",
}  # fmt: skip
PLACES = {("places",), ("promises",), ("immutable",)}
CEREMONY_USES = {
    "tlog",
    "predecessor",
    "canonical",
    "demands",
    "entry",
    "statement",
    "trustfile",
    "words",
    "keyfile",
    "tokens",
    "errors",
    "limits",
}
POSIX_ONLY = {
    "crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios",
    "tty",
}  # fmt: skip


def imports(source: str) -> Iterator[tuple[str, ...]]:
    """Every absolute import in the source as dotted components, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned"
            base = tuple((node.module or "").split("."))
            for alias in node.names:
                yield (*base, alias.name)


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ("/".join(parts), path)


def floor(name: str) -> int:
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"client module {name!r} has no floor: add it to FLOORS and docs/architecture.md")


def client_violations(name: str, source: str) -> list[str]:
    """Arrows of one client module that point up or sideways."""
    room = name.split("/", maxsplit=1)[0]
    if room == "__init__":
        return []
    found = []
    for target in imports(source):
        if target[0] != "countermark" or len(target) < 2:
            continue
        other = target[1]
        if other == room or not ((CLIENT / other).is_dir() or (CLIENT / f"{other}.py").exists()):
            continue
        if floor(other) <= floor(room) and (room, other) not in SIDEWAYS:
            found.append(f"countermark.{name} imports countermark.{other}")
    return found


def server_violations(name: str, source: str) -> list[str]:
    """Arrows of one server module that cross rooms or reach into a command engine of the client."""
    room = name.split("/", maxsplit=1)[0]
    found = []
    for target in imports(source):
        if target[0] == "countermark_ceremony":
            found.append(f"countermark_server.{name} imports the ceremony")
        if target[0] == "countermark" and len(target) > 1 and target[1] not in SERVER_USES:
            found.append(f"countermark_server.{name} imports countermark.{target[1]}")
        if target[0] != "countermark_server" or len(target) < 2:
            continue
        other = target[1]
        if room in STATIONS and other in STATIONS - {room}:
            # accounts and web are shared floors below the stations, not stations themselves
            if other in {"accounts", "web"} and room not in {"accounts", "web"}:
                continue
            found.append(f"countermark_server.{name} imports station {other}")
        if room not in COMPOSITION and other in COMPOSITION:
            found.append(f"countermark_server.{name} imports the composition root {other}")
        if room == "timestamper" and other == "stores" and target[2:3] in PLACES:
            continue  # a folder or a bucket for its fence: no store of the registry
        if room == "timestamper" and other in {
            "db",
            "tables",
            "submission",
            "proposal",
            "ruleview",
            "stores",
        }:
            found.append(f"countermark_server.{name} imports {other} of the registry")
    return found


def ceremony_violations(name: str, source: str) -> list[str]:
    """Arrows of one ceremony module towards anything that could open a socket, or towards the server."""
    found = []
    for target in imports(source):
        if target[0] in {"socket", "http", "urllib", "urllib3", "ssl", "countermark_server"}:
            found.append(f"countermark_ceremony.{name} imports {'.'.join(target)}")
        if target[:2] == ("tuf", "ngclient"):
            found.append(f"countermark_ceremony.{name} imports tuf.ngclient")
        if target[0] == "countermark" and len(target) > 1 and target[1] not in CEREMONY_USES:
            found.append(f"countermark_ceremony.{name} imports countermark.{target[1]}")
    return found


@pytest.mark.parametrize(
    ("package", "violations"),
    [(CLIENT, client_violations), (SERVER, server_violations), (CEREMONY, ceremony_violations)],
    ids=["client", "server", "ceremony"],
)
def test_imports_follow_the_arrows(package: Path, violations) -> None:
    """No module imports against the arrows of the design."""
    found = [v for name, path in modules(package) for v in violations(name, path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_a_planted_violation_is_seen() -> None:
    """The test of the test: each kind of forbidden arrow is reported."""
    assert client_violations("tlog/note", "from countermark.fetch import Fetcher") != []
    assert client_violations("entry", "def f():\n    import countermark.verify") != []
    assert server_violations("scan/station", "from countermark_server.upload import receive") != []
    assert server_violations("timestamper/signs", "from countermark_server import db") != []
    assert server_violations("timestamper/signs", "from countermark_server.stores import heads") != []
    assert server_violations("index/simple", "from countermark.publish import upload") != []
    assert ceremony_violations("plan", "import socket") != []
    assert ceremony_violations("plan", "from countermark.fetch import Fetcher") != []
    with pytest.raises(AssertionError):
        list(imports("from . import merkle"))


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    paths = {
        ".".join((package.name, *name.split("/"))).removesuffix(".__init__"): path
        for name, path in modules(package)
    }
    arrows = {name: set[str]() for name in paths}
    for name, path in paths.items():
        for target in imports(path.read_text("utf-8")):
            imported = ".".join(target)
            while imported and imported not in paths:
                imported = imported.rpartition(".")[0]
            if imported and imported != name:
                arrows[name].add(imported)
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", [CLIENT, SERVER, CEREMONY], ids=["client", "server", "ceremony"])
def test_no_modules_import_each_other_in_a_circle(package: Path) -> None:
    assert circle(package) == []


def test_a_planted_circle_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "acme"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("from acme.two import b\n")
    (package / "two.py").write_text("def b():\n    from acme import one\n")
    assert set(circle(package)) == {"acme.one", "acme.two"}


def test_law_has_no_io_and_no_clock() -> None:
    """tlog/ and the entry law import nothing that reads a clock, a file, a socket or randomness."""
    banned = {"os", "io", "pathlib", "time", "datetime", "random", "secrets", "socket", "urllib3", "requests"}
    law = [path for name, path in modules(CLIENT) if name.startswith("tlog/")]
    law += [CLIENT / name for name in ("entry.py", "statement.py", "bins.py", "trustfile.py")]
    law += [CLIENT / name for name in ("listing.py", "canonical.py", "names.py", "schema.py", "replay.py")]
    law += sorted(CLIENT.glob("rules*.py"))
    found = [
        f"{path.name} imports {target[0]}"
        for path in law
        for target in imports(path.read_text("utf-8"))
        if target[0] in banned
    ]
    assert not found, "\n".join(found)


def test_one_module_connects_out_and_one_listens() -> None:
    """In the client only fetch.py imports a network client and only serving.py a server.

    clientcerts.py asks `ssl` whether a key is that of a certificate, and connects nowhere.
    """
    out, listening = {"urllib3", "socket", "ssl"}, {"socketserver", "http"}
    for name, path in modules(CLIENT):
        for target in imports(path.read_text("utf-8")):
            assert target[0] not in out or name in {"fetch", "patience", "agent", "clientcerts"}, (
                f"{name} imports {target[0]}"
            )
            assert target[0] not in listening or name == "serving", f"{name} imports {target[0]}"


def test_the_client_takes_its_dataclasses_from_values() -> None:
    """One `from dataclasses import` on the way to `bundle verify` costs a third of its budget (ADR 15)."""
    for _, path in modules(CLIENT):
        if path.name != "values.py":
            taken = {target[0] for target in imports(path.read_text("utf-8"))}
            assert "dataclasses" not in taken, path


def posix_violations(name: str, source: str) -> list[str]:
    """POSIX-only modules that one client module imports: anywhere, or in the two that may, unguarded."""
    if name in {"agent", "disk"}:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "sys.platform" in ast.unparse(node.test):
                node.body, node.orelse = [ast.Pass()], []
        source = ast.unparse(tree)
    taken = {target[0] for target in imports(source)} & POSIX_ONLY
    return [f"{name} imports {module}" for module in sorted(taken)]


def test_posix_only_modules_are_guarded() -> None:
    """Only agent.py and disk.py import any, behind a question for the platform; a planted one is seen."""
    found = [v for name, path in modules(CLIENT) for v in posix_violations(name, path.read_text("utf-8"))]
    assert not found, "\n".join(found)
    assert posix_violations("run", "def f():\n    import fcntl") == ["run imports fcntl"]
    assert posix_violations("keyfile", "from pwd import getpwuid") == ["keyfile imports pwd"]
    assert posix_violations("disk", "def f():\n    import fcntl") == ["disk imports fcntl"]
    assert posix_violations("disk", "if sys.platform == 'win32':\n    pass\nelse:\n    import fcntl") == []


def test_the_client_is_imported_where_posix_only_modules_are_not() -> None:
    """Also agent.py and disk.py, and whatever they need of others: as on Windows, importing one fails."""
    names = [f"countermark.{name.replace('/', '.')}" for name, _ in modules(CLIENT) if "__" not in name]
    program = "import importlib, sys; sys.modules.update(dict.fromkeys({!r})); [*map(importlib.import_module, {!r})]"
    command = [sys.executable, "-I", "-c", program.format(sorted(POSIX_ONLY - {"posix"}), names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def renames_and_locks(source: str) -> list[str]:
    """Calls that rename, link or lock a file; `str.replace` has two arguments, `Path.replace` one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = node.func.attr
        of_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
        if name in {
            "rename",
            "renames",
            "link",
            "symlink_to",
            "hardlink_to",
            "move",
            "flock",
            "lockf",
            "locking",
        } or (name == "replace" and (of_os or (len(node.args) == 1 and not node.keywords))):
            found.append(ast.unparse(node.func))
    return found


def test_files_are_renamed_and_locked_in_one_place() -> None:
    """disk.py knows what each system allows; the proxy's store, whose files are being read, is the one exception."""
    found = {name for name, path in modules(CLIENT) if renames_and_locks(path.read_text("utf-8"))}
    assert found == {"disk", "filestore"}
    for planted in (
        "os.replace(a, b)",
        "path.replace(b)",
        "path.rename(b)",
        "fcntl.flock(f, 2)",
        "shutil.move(a, b)",
    ):
        assert renames_and_locks(planted), planted
    assert not renames_and_locks("text.replace('a', 'b'); replace(view, now=1); moment.replace(tzinfo=UTC)")


def test_subprocesses_never_go_through_a_shell() -> None:
    """No `shell=True`, no os.system, in any of the three distributions."""
    for package in (CLIENT, SERVER, CEREMONY):
        for name, path in modules(package):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "shell":
                    raise AssertionError(f"{name} passes shell=")
                if isinstance(node, ast.Attribute) and node.attr in {"system", "popen"}:
                    assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), name


def test_only_the_error_modules_know_http_status_codes() -> None:
    """In the server a bare HTTP status code stands in errors.py alone."""
    codes = {400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 451, 500, 502, 503}
    for name, path in modules(SERVER):
        if name in {"errors"} or name.startswith(("migrations/", "timestamper/", "log/witness")):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                assert node.value not in codes, f"countermark_server.{name}:{node.lineno} says {node.value}"
