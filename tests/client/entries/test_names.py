"""Names: what is legal, and what is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name, canonicalize_version
from packaging.version import InvalidVersion, Version

from countermark.errors import MalformedError
from countermark.names import normalise_filename, normalise_project, normalise_version, parse_filename

version_text = st.from_regex(
    r"\A(?i:v?([0-9]{1,3}!)?[0-9]{1,3}(\.[0-9]{1,3}){0,3}"
    r"([-_.]?(a|b|c|rc|alpha|beta|pre|preview)[-_.]?[0-9]{0,2})?"
    r"(-[0-9]{1,2}|[-_.]?(post|rev|r)[-_.]?[0-9]{0,2})?([-_.]?dev[-_.]?[0-9]{0,2})?"
    r"(\+[a-z0-9]{1,4}([-_.][a-z0-9]{1,4}){0,2})?)\Z"
) | st.text("0123456789.!+-_abcdevrpost", max_size=16)


@given(version_text)
def test_versions_agree_with_packaging(text: str) -> None:
    """The same versions are legal, with the same normal form, as in PyPA's own library."""
    try:
        expected = Version(text)
    except InvalidVersion:
        with pytest.raises(MalformedError):
            normalise_version(text)
        return
    assert normalise_version(text) == str(expected)
    assert normalise_version(text, strip_zeros=True) == canonicalize_version(text)
    assert normalise_version(normalise_version(text)) == normalise_version(text)


@given(st.text("abzAZ019-_.", min_size=1, max_size=12))
def test_projects_agree_with_packaging(text: str) -> None:
    """PEP 503, for names that PEP 508 allows."""
    try:
        name = normalise_project(text)
    except MalformedError:
        assert not (text[0].isalnum() and text[-1].isalnum())
        return
    assert name == canonicalize_name(text) == normalise_project(name)


@given(st.text(max_size=300))
def test_no_text_leaks_another_error(text: str) -> None:
    """Any text is a name or malformed."""
    for call in (normalise_project, normalise_version, normalise_filename):
        for candidate in (text, text + "-1.0.tar.gz", text + "-py3-none-any.whl"):
            try:
                call(candidate)
            except MalformedError:
                continue


@pytest.mark.parametrize(
    ("spelling", "normalised", "project", "version"),
    [
        ("Foo_Bar-1.0-py3-none-any.whl", "foo_bar-1-py3-none-any.whl", "foo-bar", "1.0"),
        ("foo.bar-1.0.0-py3-none-any.whl", "foo_bar-1-py3-none-any.whl", "foo-bar", "1.0.0"),
        ("foo-1.0-1build-py3.py2-none-any.whl", "foo-1-1build-py2.py3-none-any.whl", "foo", "1.0"),
        ("foo-1.0.Post1-py3-none-any.whl", "foo-1.post1-py3-none-any.whl", "foo", "1.0.post1"),
        ("torch-2.1+cu118-cp311-cp311-linux_x86_64.whl",) * 2 + ("torch", "2.1+cu118"),
        ("foo-1!2.0-py3-none-any.whl", "foo-1!2-py3-none-any.whl", "foo", "1!2.0"),
        ("backports.tarfile-1.2.0.tar.gz", "backports_tarfile-1.2.tar.gz", "backports-tarfile", "1.2.0"),
        ("my-cool-pkg-0.10.zip", "my_cool_pkg-0.10.zip", "my-cool-pkg", "0.10"),
    ],
)
def test_spellings_of_one_file(spelling: str, normalised: str, project: str, version: str) -> None:
    """What an installer takes for the same file has the same normalised name."""
    file = parse_filename(spelling)
    assert (file.project, file.version, file.normalised) == (project, version, normalised)
    assert normalise_filename(file.normalised) == file.normalised


@pytest.mark.parametrize(
    "name",
    [
        "",
        "acme",
        "acme.whl",
        "acme-1.0.exe",
        "acme-1.0.tar.bz2",
        "acme-1.0.TAR.GZ",
        "acme.tar.gz",
        "-1.0.tar.gz",
        "acme-1.0-py3-none.whl",
        "acme-1.0-py3-none-any-x-y.whl",
        "acme-1.0-build-py3-none-any.whl",
        "acme-x-py3-none-any.whl",
        "../acme-1.0.tar.gz",
        "a/b-1.0.tar.gz",
        "acme-1.0-py3-none-any.whl\n",
        "acmé-1.0.tar.gz",
        "acme-1.0\u0661.tar.gz",
        "acme-1.0-py3--any.whl",
        "acme-1.0-py3-none-a/ny.whl",
        "a" * 250 + "-1.0.tar.gz",
    ],
)
def test_other_names_are_malformed(name: str) -> None:
    """Paths, other endings, missing parts, letters beyond ASCII and long names have no place in a log."""
    with pytest.raises(MalformedError):
        normalise_filename(name)
