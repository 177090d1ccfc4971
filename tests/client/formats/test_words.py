"""Root words: the published list, the published vectors, and kindness to people who type."""

import hashlib
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark import words
from countermark.errors import EvidenceError, UsageError

PUBLISHED = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"


def test_the_word_list_is_the_published_one():
    """Byte for byte BIP-39's English list."""
    raw = resources.files("countermark").joinpath("words.txt").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == PUBLISHED
    assert len(words.word_list()) == 2048 and words.word_list()[-1] == "zoo"


@pytest.mark.parametrize(
    ("entropy", "text"),
    [
        ("00" * 16, "abandon " * 11 + "about"),
        ("7f" * 16, "legal winner thank year wave sausage worth useful legal winner thank yellow"),
        ("80" * 16, "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"),
        ("ff" * 16, "zoo " * 11 + "wrong"),
        (
            "9e885d952ad362caeb4efe34a8e91bd2",
            "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
        ),
    ],
)
def test_the_published_vectors_hold(entropy, text):
    """BIP-39's own test vectors of 128 bits, both ways."""
    assert words.format_words(bytes.fromhex(entropy)) == text
    assert words.parse_words(text).hex() == entropy


def test_the_example_of_the_docstring_is_real():
    """The essay's words are those of its bytes."""
    assert words.root_words(b'{"_type":"root"}') in (words.__doc__ or "")


@given(st.binary(min_size=16, max_size=16))
def test_every_digest_survives_being_read_aloud(digest):
    """Formatting and parsing are inverse."""
    assert words.parse_words(words.format_words(digest)) == digest


def test_case_spaces_and_commas_do_not_matter():
    """People copy words from screens, mails and paper."""
    text = words.root_words(b"x")
    untidy = "  " + text.upper().replace(" ", " ,\r\n\t ") + ", "
    assert words.parse_words(untidy) == words.parse_words(text)


def test_a_wrong_word_is_named_with_the_nearest_one():
    """The typo's place and the likely meaning are both said."""
    with pytest.raises(UsageError, match=r"root word 12 is 'abuot'") as caught:
        words.parse_words("abandon " * 11 + "abuot")
    assert caught.value.hint == "did you mean 'about'?"


@pytest.mark.parametrize(("text", "count"), [("", 0), (" \n", 0), ("abandon", 1), ("abandon " * 13, 13)])
def test_another_number_of_words_is_refused(text, count):
    """Twelve, and the message says how many there were."""
    with pytest.raises(UsageError, match=f"are 12 words, these are {count}"):
        words.parse_words(text)


def test_words_that_do_not_belong_together_are_refused():
    """The checksum notices a listed word in the wrong place."""
    with pytest.raises(UsageError, match="do not belong together"):
        words.parse_words("abandon " * 12)


def test_the_words_of_another_root_are_refused_showing_both():
    """Evidence, not usage: somebody may have swapped the root."""
    given_words = words.root_words(b"the true root")
    words.check_root_words(given_words, b"the true root")
    with pytest.raises(EvidenceError) as caught:
        words.check_root_words(given_words, b"another root")
    assert given_words in str(caught.value) and words.root_words(b"another root") in str(caught.value)


def test_hex_groups_show_the_whole_digest():
    """Sixteen groups of four digits."""
    groups = words.hex_groups(b"x").split(" ")
    assert "".join(groups) == hashlib.sha256(b"x").hexdigest() and {len(g) for g in groups} == {4}


@given(st.text(max_size=200))
def test_any_text_is_either_words_or_a_usage_error(text):
    """No other error leaves the parser."""
    try:
        digest = words.parse_words(text)
    except UsageError:
        return
    assert len(digest) == 16
