"""lockfile.py: what each kind of lock pins, what it leaves open, and what is no lock at all."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.errors import UsageError
from countermark.lockfile import LockFile, Pinned, read_lock

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32

UV = f"""
version = 1
requires-python = ">=3.11"

[[package]]
name = "app"
version = "0"
source = {{ virtual = "." }}

[[package]]
name = "Acme.Demo"
version = "1.0"
source = {{ registry = "https://registry.test/simple/" }}
sdist = {{ url = "https://registry.test/packages/acme-demo/acme_demo-1.0.tar.gz", hash = "sha256:{A}", size = 9 }}
wheels = [
    {{ url = "https://registry.test/p/acme_demo-1.0-py3-none-any.whl", hash = "sha256:{B}", size = 9 }},
]

[[package]]
name = "from-git"
version = "2.0"
source = {{ git = "https://git.test/x?rev=1#abc" }}

[[package]]
name = "here"
version = "3.0"
source = {{ editable = "packages/here" }}

[[package]]
name = "elsewhere"
version = "3.0"
source = {{ directory = "../elsewhere" }}

[[package]]
name = "only-source"
version = "4.0"
source = {{ registry = "https://registry.test/simple/" }}
sdist = {{ url = "https://registry.test/p/only_source-4.0.tar.gz", hash = "sha256:{C}" }}

[[package]]
name = "no-hash"
version = "5.0"
source = {{ registry = "https://registry.test/simple/" }}
wheels = [{{ url = "https://registry.test/p/no_hash-5.0-py3-none-any.whl" }}]
"""

PYLOCK = f"""
lock-version = "1.0"
created-by = "t"
[[packages]]
name = "acme-demo"
version = "1.0"
[[packages.wheels]]
name = "acme_demo-1.0-py3-none-any.whl"
url = "https://registry.test/p/acme_demo-1.0-py3-none-any.whl"
[packages.wheels.hashes]
sha256 = "{A}"
[[packages]]
name = "from-vcs"
[packages.vcs]
type = "git"
url = "https://git.test/x"
[[packages]]
name = "weak"
version = "1.0"
wheels = [{{ name = "weak-1.0-py3-none-any.whl", hashes = {{ md5 = "00" }} }}]
"""

POETRY = f"""
[[package]]
name = "acme-demo"
version = "1.0"
files = [
    {{file = "acme_demo-1.0-py3-none-any.whl", hash = "sha256:{A}"}},
    {{file = "acme_demo-1.0.tar.gz", hash = "sha256:{B}"}},
]
[[package]]
name = "local"
version = "1.0"
files = []
[package.source]
type = "directory"
url = "../local"
[metadata]
lock-version = "2.1"
"""

REQUIREMENTS = f"""
# a comment
-i https://other.test/simple/
--extra-index-url=https://third.test/simple/
--require-hashes
Acme_Demo[extra]==1.0 ; python_version > "3" \\
    --hash=sha256:{A} \\
    --hash=sha256:{B.upper()}
-r more.txt
no-hash==1.0
open-ended>=1.0 --hash=sha256:{C}
weak==1.0 --hash=md5:00
-e ./here
./there
thing @ https://x.test/thing.whl --hash=sha256:{C}
"""


def read(folder: Path, name: str, text: str) -> LockFile:
    (folder / name).write_text(text)
    return read_lock(folder / name)


def test_uv_lock(tmp_path: Path) -> None:
    """Wheels and sdists of index packages are pinned; git, folders, builds and missing hashes are named."""
    lock = read(tmp_path, "uv.lock", UV)
    assert [(p.project, p.version, p.filename, p.sha256) for p in lock.pinned] == [
        ("acme-demo", "1.0", "acme_demo-1.0-py3-none-any.whl", B),
        ("acme-demo", "1.0", "acme_demo-1.0.tar.gz", A),
        ("only-source", "4.0", "only_source-4.0.tar.gz", C),
    ]
    assert [(item.project, item.folder) for item in lock.unprovable] == [
        ("from-git", None),
        ("here", "packages/here"),
        ("elsewhere", "../elsewhere"),
        ("only-source", None),
        ("no-hash", None),
    ]


def test_pylock(tmp_path: Path) -> None:
    """PEP 751: only SHA-256 counts."""
    lock = read(tmp_path, "pylock.toml", PYLOCK)
    assert [(p.project, p.filename, p.sha256) for p in lock.pinned] == [
        ("acme-demo", "acme_demo-1.0-py3-none-any.whl", A)
    ]
    assert [item.project for item in lock.unprovable] == ["from-vcs", "weak"]
    assert read(tmp_path, "pylock.dev.toml", PYLOCK).kind == "pylock.toml"


def test_poetry_lock(tmp_path: Path) -> None:
    """Files by name; other sources are named."""
    lock = read(tmp_path, "poetry.lock", POETRY)
    assert [(p.filename, p.sha256) for p in lock.pinned] == [
        ("acme_demo-1.0-py3-none-any.whl", A),
        ("acme_demo-1.0.tar.gz", B),
    ]
    assert [item.project for item in lock.unprovable] == ["local"]


def test_each_source_of_a_poetry_lock_is_pinned(tmp_path: Path) -> None:
    """poetry builds any of them; a second one is as good to it as the first."""
    second = f'    {{file = "acme_demo-1.0.zip", hash = "sha256:{C}"}},\n]\n[[package]]\nname = "local"'
    lock = read(tmp_path, "poetry.lock", POETRY.replace(']\n[[package]]\nname = "local"', second))
    assert {pin.sha256 for pin in lock.pinned} == {A, B, C}


def test_requirements(tmp_path: Path) -> None:
    """Continuations, extras, markers, includes and options are read as pip reads them."""
    (tmp_path / "more.txt").write_text(f"other==2.0 --hash sha256:{C}\n")
    lock = read(tmp_path, "requirements.txt", REQUIREMENTS)
    assert lock.pinned == (
        Pinned("acme-demo", "1.0", None, A),
        Pinned("acme-demo", "1.0", None, B),
        Pinned("other", "2.0", None, C),
    )
    names = [item.project for item in lock.unprovable]
    assert names[:3] == ["no-hash", "open-ended", "weak"] and len(names) == 6
    assert lock.indexes == (
        "-i https://other.test/simple/",
        "--extra-index-url https://third.test/simple/",
    )
    assert len(lock.inputs) == 2


def test_a_change_is_noticed_in_every_file_read(tmp_path: Path) -> None:
    """Included files belong to the lock; a deleted one has changed."""
    (tmp_path / "more.txt").write_text("")
    lock = read(tmp_path, "requirements.txt", REQUIREMENTS)
    assert lock.changed() == []
    (tmp_path / "more.txt").write_text("x==1")
    assert lock.changed() == [tmp_path / "more.txt"]
    (tmp_path / "more.txt").unlink()
    assert lock.changed() == [tmp_path / "more.txt"]


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "poetry.lock"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "not toml",
        "version = 2",
        "[[package]]\nname = 1",
        'lock-version = "9"',
        "package = 3\nversion = 1",
    ],
)
def test_what_is_no_lock_is_a_usage_error(tmp_path: Path, name: str, text: str) -> None:
    """Empty, foreign, newer and wrongly typed locks name the file."""
    with pytest.raises(UsageError, match="lock"):
        read(tmp_path, name, text)


def test_unreadable_requirements_are_usage_errors(tmp_path: Path) -> None:
    """Missing, not UTF-8, including itself."""
    with pytest.raises(UsageError, match="cannot read"):
        read_lock(tmp_path / "absent.txt")
    (tmp_path / "r.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_lock(tmp_path / "r.txt")
    (tmp_path / "loop.txt").write_text("-r loop.txt")
    with pytest.raises(UsageError, match="include each other"):
        read_lock(tmp_path / "loop.txt")


@given(text=st.text(max_size=300))
def test_no_text_makes_the_reader_leak(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever the file holds: a lock or a UsageError."""
    folder = tmp_path_factory.mktemp("lock")
    for name in ("uv.lock", "pylock.toml", "poetry.lock", "requirements.txt"):
        (folder / name).write_text(text, encoding="utf-8", errors="replace", newline="")
        with contextlib.suppress(UsageError):
            read_lock(folder / name)
