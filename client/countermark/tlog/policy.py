"""Policies: which logs are known, which witnesses, and how many of them must have cosigned.

    log log.example.org/countermark+07be4a54+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c https://example.org/log/

    witness w1 witness.example.org/w1+6d7ef907+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU
    group all-of-us all w1
    quorum all-of-us

A name is defined once, on a line above its first use, and is a member of one group at most, so that no
witness counts twice. `quorum none` asks for no witness; who may write that is decided elsewhere. Log lines
with one name are one log's *key set*: our verifiers want every key of it under a checkpoint.

Names and URLs are opaque, and only blanks and tabs part them. A text that does not end in a newline has lost
its end and is refused. Format: https://c2sp.org/tlog-policy (text of 2026-07), with logs' keys of type 0x01 or
0x06 and witnesses' keys of type 0x04 or 0x06 only, as others state no time.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from countermark.errors import MalformedError
from countermark.limits import POLICY_MAX_BYTES, POLICY_MAX_LINES
from countermark.tlog.note import ED25519, ED25519_COSIGNATURE, ML_DSA_44, VerifierKey
from countermark.values import dataclass, field, pattern

NONE = "none"
_THRESHOLD = pattern(r"[1-9][0-9]{0,5}")
_UNFIT = pattern("[\x00-\x08\x0b-\x1f\x7f\ud800-\udc7f\udd00-\udfff]")  # the rest may stand for a byte


@dataclass(frozen=True)
class Log:
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True)
class Witness:
    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True)
class Group:
    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """What `parse` made of a policy's text. `format` puts logs first, then witnesses, then groups."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @classmethod
    def parse(cls, text: str) -> Policy:
        reader = _Reader()
        for number, line in enumerate(_lines(text), 1):
            words = [word for word in line.replace("\t", " ").split(" ") if word]
            if not words or words[0].startswith("#"):
                continue
            try:
                reader.take(words)
            except MalformedError as error:
                raise MalformedError(f"policy line {number}: {error}") from None
        if reader.quorum is None:
            raise MalformedError("the policy has no quorum line")
        return cls(tuple(reader.logs), tuple(reader.witnesses), tuple(reader.groups), reader.quorum)

    def format(self) -> str:
        lines: list[list[str | None]] = [["log", log.key.format(), log.url] for log in self.logs]
        lines += [["witness", w.name, w.key.format(), w.url] for w in self.witnesses]
        lines += [["group", group.name, str(group.threshold), *group.members] for group in self.groups]
        lines += [["quorum", self.quorum]]
        return "".join(" ".join(filter(None, line)) + "\n" for line in lines)

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """The key set of the log with this origin; empty when the policy does not know it."""
        return tuple(log.key for log in self.logs if log.key.name == origin)

    def operators(self, cosigned: Container[str]) -> int:
        """How many operators stand behind the witnesses that cosigned, by name.

        Of a group of which any one is enough the witnesses are each other's spares, and so one operator's. The
        quorum itself is no such group: a registry that is content with any one still names several.
        """
        found = {witness.name: int(witness.name in cosigned) for witness in self.witnesses}
        for group in self.groups:
            members = sum(found.pop(member) for member in group.members)
            are_spares = group.threshold == 1 and group.name != self.quorum
            found[group.name] = min(1, members) if are_spares else members
        return sum(found.values())

    def quorum_time(self, cosignatures: Mapping[str, int]) -> int | None:
        """The newest T such that the cosignatures (by witness, their times) of T or later make the quorum."""
        if self.quorum == NONE:
            return max(cosignatures.values(), default=0)
        times = {witness.name: cosignatures.get(witness.name) for witness in self.witnesses}
        for group in self.groups:  # a group has witnessed by T when its k-th newest member has
            newest = sorted((t for m in group.members if (t := times[m]) is not None), reverse=True)
            times[group.name] = newest[group.threshold - 1] if len(newest) >= group.threshold else None
        return times[self.quorum]


@dataclass
class _Reader:
    """What the lines so far have defined."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(Log(_key(vkey, (ED25519, ML_DSA_44), self.logs), *url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                key = _key(vkey, (ED25519_COSIGNATURE, ML_DSA_44), self.witnesses)
                self._define(name)
                self.witnesses.append(Witness(name, key, *url))
            case ["group", name, threshold, *members] if members:
                for member in members:
                    self._look_up(member)
                    if member in self.members:
                        raise MalformedError(f"{member!r} is already a member of a group")
                    self.members.add(member)
                self._define(name)  # after its members: a group is not its own
                self.groups.append(Group(name, _threshold(threshold, len(members)), tuple(members)))
            case ["quorum", name]:
                if self.quorum is not None:
                    raise MalformedError("a second quorum")
                if name != NONE:
                    self._look_up(name)
                self.quorum = name
            case _:
                raise MalformedError(f"this is no log, witness, group or quorum line: {words[0][:40]!r}")

    def _define(self, name: str) -> None:
        if name == NONE or name in self.names:
            raise MalformedError(f"the name {name!r} is already taken")
        self.names.add(name)

    def _look_up(self, name: str) -> None:
        if name not in self.names:
            raise MalformedError(f"the name {name!r} is not defined above this line")


def _lines(text: str) -> list[str]:
    # What is printable holds none of them, and is found out without compiling the pattern.
    if not text.replace("\n", "").replace("\t", "").isprintable() and _UNFIT.search(text):
        raise MalformedError("a policy must be bytes without control characters, but for tab and newline")
    if len(text.encode("utf-8", "surrogateescape")) > POLICY_MAX_BYTES or text.count("\n") > POLICY_MAX_LINES:
        raise MalformedError(f"a policy has at most {POLICY_MAX_BYTES} bytes and {POLICY_MAX_LINES} lines")
    *lines, rest = text.split("\n")
    if rest or not lines:
        raise MalformedError("a policy must end in a newline")
    return lines


def _key(vkey: str, types: tuple[int, ...], known: Sequence[Log | Witness]) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.type not in types:
        raise MalformedError(f"key {key.name} has type 0x{key.type:02x}, which cannot serve here")
    if any(key.public_key == other.key.public_key for other in known):
        raise MalformedError(f"the public key of {key.name} is listed twice")
    return key


def _threshold(word: str, members: int) -> int:
    if word in ("any", "all"):
        return 1 if word == "any" else members
    if not _THRESHOLD.fullmatch(word) or int(word) > members:
        raise MalformedError(f"the threshold {word[:40]!r} is not any, all, or a number from 1 to {members}")
    return int(word)
