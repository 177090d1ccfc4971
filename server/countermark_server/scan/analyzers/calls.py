"""Names and calls in a syntax tree: which function a call means, whatever it was imported as.

import base64 as b          b.b64decode(x)                 -> base64.b64decode
from subprocess import run  run(["git", "describe"])       -> subprocess.run
                            __import__("os").system("x")   -> os.system
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping


def imported_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for, anywhere in the tree."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                found[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def called(node: ast.Call, names: Mapping[str, str]) -> str | None:
    """The dotted name of the function that is called, if it has one."""
    return _dotted(node.func, names)


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(names.get(node.id, node.id))
    elif isinstance(node, ast.Call) and (module := imported_by_call(node)):
        parts.append(module)
    else:
        return None
    return ".".join(reversed(parts)).removeprefix("builtins.").removeprefix("__builtins__.")


def imported_by_call(node: ast.Call) -> str | None:
    """The module in `__import__("x")` and `importlib.import_module("x")`."""
    name = node.func
    known = (isinstance(name, ast.Name) and name.id in ("__import__", "import_module")) or (
        isinstance(name, ast.Attribute) and name.attr == "import_module"
    )
    if known and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
        return node.args[0].value
    return None


def scopes(tree: ast.Module) -> Iterator[list[ast.AST]]:
    """The nodes of the module and of each function, each without those of the functions inside it."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        scope = waiting.pop()
        nodes: list[ast.AST] = []
        inner = list(ast.iter_child_nodes(scope))
        while inner:
            node = inner.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting.append(node)
                continue
            nodes.append(node)
            inner.extend(ast.iter_child_nodes(node))
        yield nodes
