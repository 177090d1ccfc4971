"""What setup.py does while it is merely being installed: talks to a network, starts programs.

    urllib.request.urlopen("https://example.invalid/x")      queue: at module level of setup.py
    os.system("...")                                         queue
    subprocess.run(["git", "describe"])                      nothing: versions come from there

Only code that runs by itself is looked at: the module level of setup.py, and the methods of classes that replace
install commands. A function that somebody may call later is no fact about an install.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from countermark_server.scan.analyzers.calls import called, imported_names
from countermark_server.scan.artifact import Source
from countermark_server.scan.findings import Finding, shown

NAME, VERSION = "install-surface", "1.0"
NETWORK = (
    "urllib.request.", "urllib2.", "requests.", "httpx.", "aiohttp.", "socket.socket", "socket.create_connection",
    "http.client.", "ftplib.", "smtplib.", "urllib.urlopen", "urllib.urlretrieve", "urllib3.",
)  # fmt: skip
SHELLS = frozenset(
    {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
)
PROCESSES = frozenset(
    {f"subprocess.{name}" for name in ("Popen", "call", "check_call", "check_output", "run")}
)
# What honest builds ask for versions, compilers and their flags.
TOOLS = frozenset({
    "git", "hg", "svn", "pkg-config", "pkgconf", "gcc", "g++", "cc", "c++", "clang", "clang++", "cmake", "make",
    "ninja", "rustc", "cargo", "nvcc", "llvm-config", "xcode-select", "xcrun", "sw_vers", "uname", "ldconfig",
    "meson", "pg_config",
})  # fmt: skip
COMMANDS = frozenset({"install", "develop", "egg_info", "build", "build_py", "sdist", "Command"})


def of_source(source: Source) -> Iterator[Finding]:
    """Network and process calls that installing alone would make."""
    if source.surface != "setup" or source.tree is None:
        return
    names = imported_names(source.tree)
    for node in _run_by_installing(source.tree, names):
        if not isinstance(node, ast.Call) or (name := called(node, names)) is None:
            continue
        rule = _rule(name, node)
        if rule is not None:
            yield Finding(NAME, rule, "queue", "setup", source.file, node.lineno, shown(name))


def _rule(name: str, node: ast.Call) -> str | None:
    if name.startswith(NETWORK):
        return "install-network"
    if name in SHELLS or name.startswith(("os.spawn", "os.exec")):
        return "install-process"
    if name in PROCESSES and _program(node) not in TOOLS:
        return "install-process"
    return None


def _program(node: ast.Call) -> str | None:
    """The program that a process call names literally; None where it is computed or goes through a shell."""
    if any(keyword.arg == "shell" for keyword in node.keywords) or not node.args:
        return None
    first = node.args[0]
    if isinstance(first, ast.List | ast.Tuple) and first.elts:
        first = first.elts[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value.split("/")[-1].split(" ")[0]
    return None


def _run_by_installing(tree: ast.Module, names: Mapping[str, str]) -> Iterator[ast.AST]:
    """Nodes of the module level, and of methods in classes that stand in for install commands."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.ClassDef) and _is_command(node, names):
            yield from ast.walk(node)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def _is_command(node: ast.ClassDef, names: Mapping[str, str]) -> bool:
    for base in node.bases:
        last = (
            base.attr
            if isinstance(base, ast.Attribute)
            else names.get(getattr(base, "id", ""), getattr(base, "id", ""))
        )
        if last.split(".")[-1].lstrip("_") in COMMANDS:
            return True
    return False
