"""Root words: a digest that people can read to each other, as 12 words of the BIP-39 English list.

    >>> root_words(b'{"_type":"root"}')
    'indicate mandate digital earn tenant stem input pink near fine cliff shadow'

The words carry the first 128 bits of SHA-256 over a root version's *canonical signed part* (what the root
keys sign: `Metadata.signed_bytes` in tuf), and 4 bits of checksum. Canonical, so that white space and the
list of signatures change nothing. 128 bits are enough here: the reader compares with one given root, and who
wants to deceive him needs a second preimage.

A root file may come from anywhere; its words may not. They come by telephone, from a colleague's screen, from
print. Ceremony screens, `countermark trust add --root-words` and `login` use this one encoder.

`parse` is kind to people: upper case, extra spaces, line breaks and commas are fine. It names the first word
that is not in the list together with the nearest one that is, and it notices a swapped word by the checksum
(15 times in 16). It never guesses.

Format: BIP-39, English word list, 128-bit entropy. words.txt is that list, byte for byte.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import cache

from countermark.errors import EvidenceError, UsageError

WORD_COUNT = 12
_BITS_PER_WORD = 11
_DIGEST_BYTES = 16
_CHECKSUM_BITS = 4


@cache
def word_list() -> tuple[str, ...]:
    """The 2,048 words in their published order."""
    from importlib import resources  # noqa: PLC0415  (lazy: verify shows no words)

    text = resources.files("countermark").joinpath("words.txt").read_text(encoding="ascii")
    return tuple(text.split("\n")[:-1])


@cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(word_list())}


def root_words(signed: bytes) -> str:
    """The 12 words of some canonical signed part."""
    return format_words(hashlib.sha256(signed).digest()[:_DIGEST_BYTES])


def format_words(digest: bytes) -> str:
    """12 words for 128 bits."""
    if len(digest) != _DIGEST_BYTES:
        raise UsageError(f"root words need {_DIGEST_BYTES} bytes, not {len(digest)}")
    value = int.from_bytes(digest, "big") << _CHECKSUM_BITS | _checksum(digest)
    shifts = range(_BITS_PER_WORD * (WORD_COUNT - 1), -1, -_BITS_PER_WORD)
    return " ".join(word_list()[value >> shift & 0x7FF] for shift in shifts)


def parse_words(text: str) -> bytes:
    """The 128 bits these words carry; refuses an unknown word by name and a wrong checksum."""
    words = re.split(r"[\s,]+", text.strip(" \t\r\n,").lower())
    for position, word in enumerate(words, start=1):
        if word and word not in _numbers():
            raise _unknown_word(position, word)
    if words == [""] or len(words) != WORD_COUNT:
        count = 0 if words == [""] else len(words)
        raise UsageError(f"root words are {WORD_COUNT} words, these are {count}")
    value = 0
    for word in words:
        value = value << _BITS_PER_WORD | _numbers()[word]
    digest = (value >> _CHECKSUM_BITS).to_bytes(_DIGEST_BYTES, "big")
    if value & (1 << _CHECKSUM_BITS) - 1 != _checksum(digest):
        raise UsageError(
            "these root words do not belong together: a word is wrong or out of place",
            hint="each word is in the list; compare them with the source one by one, in order",
        )
    return digest


def check_root_words(text: str, signed: bytes) -> None:
    """Refuse a canonical signed part whose words are not `text`."""
    expected = parse_words(text)
    if not hmac.compare_digest(expected, hashlib.sha256(signed).digest()[:_DIGEST_BYTES]):
        raise EvidenceError(
            f"this root is not the one the words name: given {format_words(expected)!r}, "
            f"the root's are {root_words(signed)!r}"
        )


def hex_groups(signed: bytes) -> str:
    """The whole SHA-256 as 16 groups of 4 hex digits, for those who would rather compare digits."""
    digest = hashlib.sha256(signed).hexdigest()
    return " ".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def nearest(word: str, words: Sequence[str] | None = None) -> str | None:
    """The listed word most like this one, or None when nothing is close."""
    import difflib  # noqa: PLC0415

    close = difflib.get_close_matches(word, words or word_list(), n=1, cutoff=0.5)
    return close[0] if close else None


def _checksum(digest: bytes) -> int:
    return hashlib.sha256(digest).digest()[0] >> 8 - _CHECKSUM_BITS


def _unknown_word(position: int, word: str) -> UsageError:
    shown = word if len(word) <= 32 else word[:32] + "..."
    guess = nearest(word[:32])
    return UsageError(
        f"root word {position} is {shown!r}, which is not in the word list",
        hint=f"did you mean {guess!r}?" if guess else None,
    )
