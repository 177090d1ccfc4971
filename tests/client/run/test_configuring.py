"""configuring.py: files of pip, uv, poetry, pdm and twine that people wrote, edited and put back as they were."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from countermark import cli, commands_configure, disk
from countermark.configuring import TOOLS, Machine, Urls, configured, uv_files
from countermark.edits import undone
from countermark.errors import UsageError
from countermark.pins import Home
from tests import archives
from tests.simulator import World

URLS = Urls("http://127.0.0.1:1/simple/", "http://127.0.0.1:1/legacy/")
PIP = """# mine
[global]
timeout = 30  
extra-index-url =
    https://name:word@other.example/simple/
    https://third.example/simple/
; kept
[install]
no_index = yes
"""  # noqa: W291  (people's files have such blanks)
UV = """[project]
name = "app"  # kept

[[tool.uv.index]]  # the old one
name = "other"
url = "https://other.example/simple/"

[tool.uv]
package = false
find-links = [
    "wheels",  # local
]

[tool.ruff]
line-length = 100
"""
POETRY = """[tool.poetry]
name = "app"
[[tool.poetry.source]]
name = "other"
url = "https://other.example/simple/"
[tool.poetry.dependencies]
acme = "1"
"""
PYPIRC = """[distutils]
index-servers =
    pypi
    other
[other]
repository = https://other.example/
password = hunter2
"""
FILES = [
    ("pip", "pip.conf", PIP),
    ("pip", "pip.conf", "[global]"),
    ("pip", "pip.ini", PIP.replace("\n", "\r\n")),
    ("uv", "pyproject.toml", UV),
    ("uv", "pyproject.toml", UV.replace("\n", "\r\n").rstrip()),
    (
        "uv",
        "uv.toml",
        'index-url = "https://other.example/"\n[pip]\nextra-index-url = ["https://x.example/"]\n',
    ),
    ("poetry", "pyproject.toml", POETRY),
    ("pdm", "pyproject.toml", POETRY.replace("poetry", "pdm")),
    ("twine", ".pypirc", PYPIRC),
    *(
        (tool, name, "")
        for tool, name in zip(TOOLS, ("p.conf", "uv.toml", "p.toml", "p.toml", ".pypirc"), strict=True)
    ),
]


@pytest.mark.parametrize(("tool", "name", "text"), FILES)
def test_an_edit_is_idempotent_and_undone_exactly(tool: str, name: str, text: str) -> None:
    """Twice is once; another address replaces the first; undo gives every byte back, comments and line ends too."""
    once = configured(tool, text, Path(name), URLS)
    assert once != text and configured(tool, once, Path(name), URLS) == once
    other = configured(
        tool, once, Path(name), Urls("http://127.0.0.1:2/simple/", "http://127.0.0.1:2/legacy/")
    )
    assert "127.0.0.1:1" not in other and undone(other) == undone(once) == text
    assert "\r" not in once.replace("\r\n", "") and (
        "\r\n" not in text or once.count("\r\n") == once.count("\n")
    )


def test_other_indexes_are_turned_off_and_the_rest_stays() -> None:
    """One index is left: pip would take files from all of them, uv from the others first."""
    parsed = tomllib.loads(configured("uv", UV, Path("pyproject.toml"), URLS))
    ours = {"name": "countermark", "url": URLS.index, "default": True}
    assert parsed["tool"] == {"uv": {"package": False, "index": [ours]}, "ruff": {"line-length": 100}}
    said = configured("pip", PIP, Path("pip.conf"), URLS)
    assert "#countermark-off#     https://third.example/simple/\n; kept" in said
    assert "#countermark-off# no_index = yes" in said and "\ntimeout = 30  \n" in said
    servers = configured("twine", PYPIRC, Path(".pypirc"), URLS)
    assert "index-servers =\n    pypi\n    other\n    countermark\n" in servers


@pytest.mark.parametrize(
    ("tool", "text", "words"),
    [
        ("uv", UV + '[tool.uv.sources]\nacme = { index = "other" }\n', 'from the index "other"'),
        ("uv", 'tool.uv = { index-url = "https://x.example/" }\n', "in a way that we do not edit"),
        ("uv", 'x = """\n[[tool.uv.index]]\ny\n"""\ntool.uv.index = []\n', "in a way that we do not edit"),
        ("poetry", POETRY + 'b = { version = "1", source = "other" }\n', 'from the source "other"'),
        ("pdm", "x", "is not TOML"),
        ("pip", "x", "no file of settings"),
        ("pip", "[global]\n  index-url = x\n  timeout = 3\n", "in a way that we do not edit"),
        ("pip", "[global]\n  timeout = 3\n", "in a way that we do not edit"),
        ("twine", "[distutils]\n  x = 1\n  index-servers = a\n", "in a way that we do not edit"),
        ("twine", "[countermark]\n", r"has a section \[countermark\] already"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_safely_is_left_alone(tool: str, text: str, words: str) -> None:
    """A dependency that names another index, spellings we do not edit, files that are none: refused."""
    name = ".pypirc" if tool == "twine" else "pyproject.toml"
    with pytest.raises(UsageError, match=words):
        configured(tool, text, Path(name), URLS)


INI_LINE = st.sampled_from(
    [
        "[global]",
        "[install]",
        "index-url = x",
        "index-url: y",
        "  more",
        "",
        "# c",
        "timeout=3",
        "  timeout = 3",
        "\tz",
        "no-index",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(INI_LINE, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
@example(["[global]", "index-url = x", "", "  more", "timeout=3"], "\n", True)
def test_any_file_comes_back_and_says_the_rest_as_before(lines: list[str], end: str, is_ended: bool) -> None:
    """Whatever pip.conf somebody has: refused, or edited so that one index is left, and undone exactly."""
    text = end.join(lines) + (end if is_ended and lines else "")
    try:
        edited = configured("pip", text, Path("pip.conf"), URLS)
    except UsageError:
        return
    assert undone(edited) == text
    said, before = configparser.RawConfigParser(), configparser.RawConfigParser()
    said.read_string(edited)
    before.read_string(text)
    rest = [{s: {k: v for k, v in p[s].items() if "index" not in k} for s in p} for p in (said, before)]
    assert {s: kept for s, kept in rest[0].items() if kept} == {
        s: kept for s, kept in rest[1].items() if kept
    }
    active = [line for line in edited.splitlines() if not line.startswith("#")]
    assert [line for line in active if "index" in line] == [f"index-url = {URLS.index}"]


@pytest.mark.parametrize(
    ("tool", "platform", "environment", "where"),
    [
        ("pip", "linux", {}, ".config/pip/pip.conf"),
        ("pip", "linux", {"XDG_CONFIG_HOME": "/x"}, "/x/pip/pip.conf"),
        ("pip", "darwin", {}, ".config/pip/pip.conf"),
        ("pip", "win32", {}, "AppData/Roaming/pip/pip.ini"),
        ("uv", "win32", {"APPDATA": "/r"}, "/r/uv/uv.toml"),
        ("uv", "linux", {}, ".config/uv/uv.toml"),
        ("twine", "win32", {}, ".pypirc"),
    ],
)
def test_each_tool_reads_its_own_place(
    tmp_path: Path, tool: str, platform: str, environment: dict[str, str], where: str
) -> None:
    """Where pip, uv and twine look on each platform."""
    machine = Machine(tmp_path / "project", tmp_path, environment, platform)
    assert TOOLS[tool].find(machine) == tmp_path / where


@pytest.mark.parametrize(
    ("platform", "environment", "where"),
    [
        ("linux", {}, ["{}/.config/uv/uv.toml", "/etc/xdg/uv/uv.toml", "/etc/uv/uv.toml"]),
        ("darwin", {"XDG_CONFIG_HOME": "/x"}, ["/x/uv/uv.toml", "/etc/xdg/uv/uv.toml", "/etc/uv/uv.toml"]),
        (
            "linux",
            {"XDG_CONFIG_HOME": "/x", "XDG_CONFIG_DIRS": "/a:/b"},
            ["/x/uv/uv.toml", "/a/uv/uv.toml", "/b/uv/uv.toml", "/etc/uv/uv.toml"],
        ),
        ("win32", {"APPDATA": "/r", "PROGRAMDATA": "/p"}, ["/r/uv/uv.toml", "/p/uv/uv.toml"]),
    ],
)  # fmt: skip
def test_uv_has_settings_beside_those_of_a_project(
    tmp_path: Path, platform: str, environment: dict[str, str], where: list[str]
) -> None:
    """Of this user and of this machine: they may name an index, too."""
    found = uv_files(Machine(tmp_path / "project", tmp_path, environment, platform))
    assert [path.as_posix() for path in found] == [each.format(tmp_path) for each in where]


def test_the_project_comes_first(tmp_path: Path) -> None:
    """uv.toml before pyproject.toml, as uv reads them; poetry without a project is a usage error."""
    machine = Machine(tmp_path, tmp_path / "home", {}, "linux")
    with pytest.raises(UsageError, match="no pyproject"):
        TOOLS["poetry"].find(machine)
    for name in ("pyproject.toml", "uv.toml"):
        (tmp_path / name).touch()
        assert TOOLS["uv"].find(machine) == tmp_path / name


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's home, with a pinned registry whose port nobody listens on."""
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_", "TWINE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "countermark"))
    monkeypatch.chdir(tmp_path)
    Home().add("http://127.0.0.1:1", World().root)
    return tmp_path


def test_the_command_shows_writes_and_undoes(person: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written without --write; rights stay; passwords are not shown; a file of ours alone goes."""
    path = person / ".pypirc"
    path.write_text(PYPIRC)
    path.chmod(0o640)
    assert cli.main(["configure", "twine"]) == 0 and path.read_text() == PYPIRC
    shown = capsys.readouterr()
    assert "+    countermark" in shown.out and "hunter2" not in shown.out and "--write" in shown.err
    assert cli.main(["configure", "twine", "--write"]) == 0
    assert path.stat().st_mode & 0o777 == 0o640 and "countermark" in path.read_text()
    assert cli.main(["configure", "twine", "--write"]) == 0
    assert "says so already" in capsys.readouterr().err
    assert cli.main(["configure", "twine", "--undo"]) == 0 and path.read_text() == PYPIRC
    assert cli.main(["configure", "pip", "--write"]) == 0 and cli.main(["configure", "pip", "--undo"]) == 0
    assert not (person / ".config/pip/pip.conf").exists()
    assert cli.main(["configure", "pip", "--index", "https://me:secret@x.example/"]) == 2
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize("undo", [False, True])
def test_a_file_that_changes_meanwhile_or_a_write_that_fails_leaves_it_as_it_is(
    person: Path, monkeypatch: pytest.MonkeyPatch, undo: bool
) -> None:
    """What somebody wrote between our look and our write stays; and so does the old file when the disk is full."""
    file = person / "pip.conf"
    words = ["configure", "pip", "--file", str(file)]
    file.write_text("[global]\ntimeout = 3\n")
    file.chmod(0o640)
    if undo:
        assert cli.main([*words, "--write"]) == 0
    action = "--undo" if undo else "--write"
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "_moved", full)
        assert cli.main([*words, action]) != 0
    assert (
        file.read_bytes() == before and [p.name for p in person.iterdir() if p.name.startswith(".pip")] == []
    )

    def late(text: str) -> None:
        put_difference(text)
        file.write_text("[global]\ntimeout = 4\n")

    with monkeypatch.context() as patched:
        put_difference = commands_configure.put_difference
        patched.setattr(commands_configure, "put_difference", late)
        assert cli.main([*words, action]) == 2
    assert file.read_text() == "[global]\ntimeout = 4\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_real_pip_uv_and_twine_read_the_result(person: Path) -> None:
    """Each names our address when it is asked, or when it finds nobody there."""
    (person / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "0"\ndependencies = ["acme"]\n'
    )
    for tool in ("pip", "uv", "twine"):
        assert cli.main(["configure", tool, "--write"]) == 0
    wheel = person / "acme-1.0-py3-none-any.whl"
    wheel.write_bytes(archives.wheel("acme", "1.0"))
    tools = Path(sys.executable).parent

    def said(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    assert "global.index-url='http://127.0.0.1:1/simple/'" in said(
        sys.executable, "-m", "pip", "config", "list"
    )
    assert "http://127.0.0.1:1/simple/acme/" in said(str(tools / "uv"), "lock", "--no-cache")
    upload = said(
        str(tools / "twine"), "upload", "-r", "countermark", "-p", "x", "--non-interactive", str(wheel)
    )
    assert "http://127.0.0.1:1/legacy/" in upload.replace("\n", "")
