"""Code that is decoded and then run: `exec(base64.b64decode(...))` and its relatives.

Libraries define, malware runs. Running what was hidden in base64, hex, a compressed string or marshal has hardly an
honest use in setup.py or at import, and a rare one elsewhere. The decoder may stand inside the call, or in a variable
of the same function that the call is given; through files, attributes or other functions it is not followed.

Blind spots, said plainly: code assembled without a decoder, and decoders written by hand.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from countermark_server.scan.analyzers.calls import called, imported_names, scopes
from countermark_server.scan.artifact import Source
from countermark_server.scan.findings import Finding, shown

NAME, VERSION = "decode-exec", "1.0"
SINKS = frozenset({"exec", "eval", "types.FunctionType"})
DECODERS = frozenset(
    {f"base64.{name}" for name in (
        "a85decode", "b16decode", "b32decode", "b64decode", "b85decode", "decodebytes", "standard_b64decode",
        "urlsafe_b64decode", "z85decode")}
    | {"binascii.a2b_base64", "binascii.a2b_hex", "binascii.unhexlify", "bz2.decompress", "codecs.decode",
       "bytes.fromhex", "bytearray.fromhex", "gzip.decompress", "lzma.decompress", "marshal.loads",
       "zlib.decompress"}
)  # fmt: skip
_TIER = {"setup": "block", "init": "block", "code": "queue", "test": "note"}
# An ASCII source without a word of both lists is not parsed; it cannot hold what is looked for. (Beyond ASCII it can:
# identifiers are NFKC-normalised, so a name may be spelled with other letters. What runs by itself is parsed then.)
_SINK_WORDS = (b"exec", b"eval", b"FunctionType")
_DECODER_WORDS = (
    b"fromhex",
    *sorted({name.partition(".")[0].encode() for name in DECODERS} - {b"bytes", b"bytearray"}),
)


def of_source(source: Source) -> Iterator[Finding]:
    """Each place where decoded data is run."""
    if not _worth_parsing(source) or source.tree is None:
        return
    names = imported_names(source.tree)
    for nodes in scopes(source.tree):
        decoded = _decoded_names(nodes, names)
        for node in nodes:
            if (
                isinstance(node, ast.Call)
                and called(node, names) in SINKS
                and _runs_decoded(node, names, decoded)
            ):
                yield Finding(
                    NAME,
                    "decoded-code-run",
                    _TIER[source.surface],
                    source.surface,
                    source.file,
                    node.lineno,
                    _line(source, node.lineno),
                )


def _worth_parsing(source: Source) -> bool:
    if source.surface in ("setup", "init") and not source.text.isascii():
        return True
    return all(any(word in source.text for word in words) for words in (_SINK_WORDS, _DECODER_WORDS))


def _decoded_names(nodes: list[ast.AST], names: Mapping[str, str]) -> set[str]:
    """Variables of one scope that hold decoded data, directly or from one another."""
    assigned = [
        (targets, node.value)
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None
        and (targets := _targets(node))
    ]  # fmt: skip
    decoded: set[str] = set()
    for _ in range(2):  # in any order of statements, one step through another variable
        for targets, value in assigned:
            if _holds_decoded(value, names, decoded):
                decoded.update(targets)
    return decoded


def _targets(node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _runs_decoded(node: ast.Call, names: Mapping[str, str], decoded: set[str]) -> bool:
    arguments = [*node.args[:1], *(keyword.value for keyword in node.keywords)]
    return any(_holds_decoded(argument, names, decoded) for argument in arguments)


def _holds_decoded(value: ast.expr, names: Mapping[str, str], decoded: set[str]) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in decoded:
            return True
        if isinstance(node, ast.Call) and called(node, names) in DECODERS:
            return True
    return False


def _line(source: Source, number: int) -> str:
    lines = source.text.split(b"\n", number)
    return shown(lines[number - 1].decode("latin-1")) if len(lines) >= number else ""
