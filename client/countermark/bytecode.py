"""Bytecode: was this .pyc made from that source? Python runs the .pyc and never looks.

    comes_from(pyc, source)          # True, False, or None: another Python's, nobody here can say

A `.pyc` whose header names its source's time and size is run in place of the source (PEP 552). Whoever may write
to an environment can so leave every source untouched and change what runs. To find it, the source is compiled
again and both results are compared.

Equal code is not always equal bytes: marshal marks objects that it met twice, and whether it does depends on
reference counts and on the order of sets. So both sides are read and compared by meaning: instructions, constants,
names, line and exception tables. Not compared is where the code says it lies (`co_filename`): installers compile in
a folder and move, and nothing runs by that name.

The bytes are a stranger's and `marshal.loads` is not made for those, so they are read here: lengths are checked,
depth is bounded, and what has no known type equals nothing. Python 3.11 to 3.14.
"""

from __future__ import annotations

import importlib.util
import marshal
import struct
from typing import Any

HEADER_BYTES = 16  # magic, flags, then mtime and size or the source's hash (PEP 552)
HASHED, CHECKED = 1, 2  # flags
DEPTH_MAX = 200
_CODE_INTEGERS = 5  # argcount, posonlyargcount, kwonlyargcount, stacksize, flags
_SINGLETONS = frozenset({b"N", b"T", b"F", b".", b"S"})
# Text in its eight spellings: (bytes of its length, encoding). Interned or not is no difference in meaning.
_TEXTS = {
    b"u": (4, "utf-8"),
    b"t": (4, "utf-8"),
    b"a": (4, "ascii"),
    b"A": (4, "ascii"),
    b"z": (1, "ascii"),
    b"Z": (1, "ascii"),
}
_SEQUENCES = {b"(": 4, b")": 1, b"[": 4, b"<": 4, b">": 4}  # bytes of their count


def comes_from(pyc: bytes, source: bytes, *, optimise: int = 0) -> bool | None:
    """Whether running this bytecode is running this source; None when another Python wrote it, or a newer one runs.

    `optimise` is the level in the file's name (`opt-1`). Source that does not compile has no bytecode: False.
    """
    if pyc[:4] != importlib.util.MAGIC_NUMBER:
        return None
    met: dict[Any, int] = {}
    try:
        code = compile(source, "", "exec", dont_inherit=True, optimize=optimise)
    except (SyntaxError, ValueError, RecursionError):
        return False
    try:
        ours = _read(marshal.dumps(code), met)
    except ValueError:
        return None  # a Python newer than this reader
    try:
        return _read(pyc[HEADER_BYTES:], met) == ours
    except ValueError:
        return False


def is_live(pyc: bytes, *, mtime: int, size: int) -> bool:
    """Whether Python would run this file beside a source of this time and size, rather than write it anew.

    One that is bound to its source by a hash which Python does not check (PEP 552, "unchecked") is always run; one
    that Python does check is taken as live, too.
    """
    if len(pyc) < HEADER_BYTES:
        return False
    flags, second, third = struct.unpack("<III", pyc[4:HEADER_BYTES])
    return bool(flags & HASHED) or (second, third) == (mtime & 0xFFFFFFFF, size & 0xFFFFFFFF)


def _read(raw: bytes, met: dict[Any, int]) -> int:
    """The number of what these marshalled bytes mean; ValueError if they mean nothing."""
    reader = _Reader(raw, met)
    found = reader.value(0)
    if reader.at != len(raw):
        raise ValueError("bytes after the end")
    return found


class _Reader:
    """One pass over marshalled bytes.

    Every meaning gets a number in `met`, made from its kind and the numbers of its parts. Equal meaning is so one
    number, and bytes that refer to their own parts again and again cost no more than their length.
    """

    def __init__(self, raw: bytes, met: dict[Any, int]) -> None:
        self._raw, self._met = raw, met
        self.at = 0
        self._seen: list[int | None] = []

    def value(self, depth: int) -> int:
        if depth > DEPTH_MAX:
            raise ValueError("too deep")
        (byte,) = self._take(1)
        kind, is_marked = bytes([byte & 0x7F]), bool(byte & 0x80)
        if kind == b"r":
            return self._met_before()
        place = len(self._seen)
        if is_marked:
            self._seen.append(None)
        meaning = self._meaning(kind, depth)
        number = self._met.setdefault(meaning, len(self._met))
        if is_marked:
            self._seen[place] = number
        return number

    def _met_before(self) -> int:
        place = self._count(4)
        number = self._seen[place] if place < len(self._seen) else None
        if number is None:
            raise ValueError("refers to nothing")
        return number

    def _meaning(self, kind: bytes, depth: int) -> Any:
        if kind in _SINGLETONS:
            return kind
        if kind in _TEXTS:
            width, encoding = _TEXTS[kind]
            return ("text", self._take(self._count(width)).decode(encoding, "surrogatepass"))
        if kind in _SEQUENCES:
            members = [self.value(depth + 1) for _ in range(self._count(_SEQUENCES[kind]))]
            if kind in b"<>":
                return (kind, frozenset(members), len(members))
            return (b"(" if kind == b")" else kind, *members)
        if kind == b"c":
            return self._code(depth)
        if kind == b":":  # a slice, from Python 3.14
            return (kind, *(self.value(depth + 1) for _ in range(3)))
        return (kind, self._scalar(kind))

    def _scalar(self, kind: bytes) -> bytes:
        """Numbers and bytes as marshal writes them: for those, one meaning has one spelling."""
        if kind == b"s":
            return self._take(self._count(4))
        if kind == b"l":
            (digits,) = struct.unpack("<i", self._take(4))
            return struct.pack("<i", digits) + self._take(2 * abs(digits))
        lengths = {b"i": 4, b"g": 8, b"y": 16}
        if kind not in lengths:
            raise ValueError(f"no type {kind!r}")
        return self._take(lengths[kind])

    def _code(self, depth: int) -> Any:
        """A code object: all of it but `co_filename`."""
        integers = self._take(4 * _CODE_INTEGERS)
        first = [
            self.value(depth + 1) for _ in range(5)
        ]  # instructions, constants, names, variables, their kinds
        self.value(depth + 1)  # co_filename
        names = [self.value(depth + 1) for _ in range(2)]  # name, qualified name
        line = self._take(4)
        tables = [self.value(depth + 1) for _ in range(2)]  # lines, exceptions
        return ("code", integers, *first, *names, line, *tables)

    def _count(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _take(self, length: int) -> bytes:
        piece = self._raw[self.at : self.at + length]
        if len(piece) != length:
            raise ValueError("ends early")
        self.at += length
        return piece
