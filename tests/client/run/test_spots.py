"""spots.py: a result is shown at the line that pins it, in whichever lock and spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from countermark.lockfile import LockFile, read_lock
from countermark.spots import Spots
from countermark.verified import Artifact
from tests.client.run.test_lockfile import POETRY, PYLOCK, REQUIREMENTS, UV

C = "cc" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a repository, which is the current folder."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lock_of(name: str, text: str) -> LockFile:
    Path(name).write_text(text, encoding="utf-8", newline="")
    return read_lock(Path(name))


def shown(lock: LockFile) -> dict[str, str]:
    """What stands in the line at which each pin and each item without a hash is shown."""
    spots, found = Spots([lock.path], [lock]), {}
    items = [(pin.project, pin.version, pin.sha256) for pin in lock.pinned]
    items += [(item.project, item.version or "", "") for item in lock.unprovable]
    for project, version, sha256 in items:
        (spot,) = spots.of(Artifact(project, version, "", sha256))
        line = Path(spot.path).read_text("utf-8").split("\n")[spot.line - 1]
        found[f"{project} {sha256[:2]}".strip()] = f"{spot.path}: {line.strip()}"
    return found


def test_each_pin_of_a_toml_lock_is_shown_at_its_hash() -> None:
    uv = shown(lock_of("uv.lock", UV))
    assert uv["acme-demo bb"].startswith('uv.lock: { url = "https://registry.test/p/acme_demo-1.0-py3-none')
    assert (
        uv["acme-demo aa"].startswith("uv.lock: sdist = {") and "acme_demo-1.0.tar.gz" in uv["acme-demo aa"]
    )
    assert uv["only-source cc"].startswith("uv.lock: sdist = {")
    names = ("from-git", "here", "elsewhere", "only-source", "no-hash")
    assert {name: uv[name] for name in names} == {name: f'uv.lock: name = "{name}"' for name in names}
    pylock = shown(lock_of("pylock.toml", PYLOCK))
    assert pylock == {
        "acme-demo aa": f'pylock.toml: sha256 = "{"aa" * 32}"',
        "from-vcs": 'pylock.toml: name = "from-vcs"',
        "weak": 'pylock.toml: name = "weak"',
    }
    poetry = shown(lock_of("poetry.lock", POETRY))
    assert poetry["acme-demo aa"].startswith('poetry.lock: {file = "acme_demo-1.0-py3-none-any.whl"')
    assert poetry["local"] == 'poetry.lock: name = "local"'


def test_requirements_are_shown_in_the_file_and_line_of_the_hash() -> None:
    """Continuations, what another file pins, and what is no pin at all; a hash may be in capitals."""
    Path("more.txt").write_text(f"# first\n\nother==2.0 --hash sha256:{C}\n")
    found = shown(lock_of("requirements.txt", REQUIREMENTS.replace("\n", "\r\n")))
    assert found["acme-demo aa"] == f"requirements.txt: --hash=sha256:{'aa' * 32} \\"
    assert found["acme-demo bb"] == f"requirements.txt: --hash=sha256:{'BB' * 32}"
    assert found["other cc"] == f"more.txt: other==2.0 --hash sha256:{C}"
    assert found["no-hash"] == "requirements.txt: no-hash==1.0"
    assert found["-e ./here"] == "requirements.txt: -e ./here"


def test_a_hash_that_stands_at_several_packages_is_shown_at_its_own() -> None:
    """A poisoned lock pins one file's hash under another name and another version."""
    table = (
        '[[package]]\nname = "{}"\nversion = "{}"\nsource = {{ registry = "https://registry.test/simple/" }}\n'
        f'wheels = [{{{{ url = "https://registry.test/p/x-1-py3-none-any.whl", hash = "sha256:{C}" }}}}]\n'
    )
    pins = [("first", "1"), ("second", "1"), ("second", "2")]
    lock = lock_of("uv.lock", "version = 1\n" + "".join(table.format(*pin) for pin in pins))
    spots = Spots([lock.path], [lock])
    lines = [spots.of(Artifact(project, version, "", C))[0].line for project, version in pins]
    assert lines == [6, 11, 16]
    assert spots.of(Artifact("unknown", "1", "", "dd" * 32))[0].line == 1


def test_a_pin_of_two_locks_is_shown_in_both() -> None:
    Path("sub").mkdir()
    locks = [lock_of("uv.lock", UV), lock_of("sub/poetry.lock", POETRY)]
    spots = Spots([lock.path for lock in locks], locks)
    found = spots.of(Artifact("acme-demo", "1.0", "acme_demo-1.0.tar.gz", "aa" * 32))
    assert [spot.path for spot in found] == ["uv.lock", "sub/poetry.lock"]
    assert [spot.path for spot in spots.of(Artifact("local", "1.0", "", ""))] == ["sub/poetry.lock"]


def test_what_is_in_no_lock_is_shown_as_the_file_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the repository's root, wherever in it one stands; a file of an environment; and what lies outside."""
    (folder / "app").mkdir()
    monkeypatch.chdir(folder / "app")
    wheel = Artifact("acme", "1", "acme-1-py3-none-any.whl", C, 3, source="my dist/acme-1-py3-none-any.whl")
    (spot,) = Spots([Path("other")]).of(wheel)
    assert (spot.path, spot.line, spot.uri) == (
        "app/my dist/acme-1-py3-none-any.whl", 1, "app/my%20dist/acme-1-py3-none-any.whl",
    )  # fmt: skip
    environment = Spots([Path("../.venv")], is_environment=True)
    found = Artifact("acme", "", "lib/python3.12/site-packages/evil.pth", "", source="extra")
    assert environment.of(found)[0].path == ".venv/lib/python3.12/site-packages/evil.pth"
    assert environment.of(Artifact("acme", "1", "acme-1-py3-none-any.whl", C))[0].path == ".venv"
    (outside,) = Spots([folder.parent / "x y.whl"]).of(Artifact("x", "1", "", ""))
    assert outside.path == (folder.parent / "x y.whl").as_posix() and outside.uri.startswith("file:///")
    assert outside.uri.endswith("/x%20y.whl")


def test_a_lock_that_is_gone_or_spelled_otherwise_is_shown_at_its_first_line() -> None:
    inline = f'version = 1\npackage = [{{ name = "a", version = "1", source = {{ registry = "x" }}, wheels = [{{ url = "a-1-py3-none-any.whl", hash = "sha256:{C}" }}] }}]\n'  # noqa: E501
    pin = Artifact("a", "1", "", C)
    lock = lock_of("uv.lock", inline)
    assert lock.pinned and Spots([lock.path], [lock]).of(pin)[0].line == 1
    Path("uv.lock").unlink()
    assert Spots([lock.path], [lock]).of(pin)[0].path == "uv.lock"


def test_a_large_lock_is_read_once() -> None:
    """Two thousand packages: a result for each is looked up, not searched for."""
    lines = [f"p{number}==1 --hash=sha256:{number:064x}" for number in range(2000)]
    lock = lock_of("requirements.txt", "\n".join(lines))
    Path("requirements.txt").write_text("\n".join(lines))
    spots = Spots([lock.path], [lock])
    Path("requirements.txt").unlink()
    found = [spots.of(Artifact(p.project, p.version, "", p.sha256))[0].line for p in lock.pinned]
    assert found == list(range(1, 2001))
