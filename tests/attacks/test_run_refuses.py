"""Ways past `run`: whatever makes the installer read, build or skip something else than what was verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from countermark.clientpolicy import Policies
from countermark.installers import plan
from countermark.lockcheck import verify_locks
from tests.project import Project
from tests.simulator import Published, World

PIP = ["pip", "install", "--require-hashes", "-r", "requirements.txt"]
UV = ["uv", "sync", "--frozen"]
EVIL = "ee" * 32
EVIL_LINE = f"acme-demo==6.6 --hash=sha256:{EVIL}\n"


@pytest.fixture
def project(tmp_path: Path, world: World, wheel: Published) -> Project:
    """A project whose locks are good."""
    project = Project(tmp_path, world)
    project.uv_lock(wheel)
    project.requirements(wheel)
    assert project.run(PIP).exit_code == project.run(UV).exit_code == 0
    project.started.clear()
    return project


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("# a comment continues nothing \\\n" + EVIL_LINE, 5),
        ("--pre -r evil.txt\n", 2),
        ("--requirem evil.txt\n", 2),
        ('-r "evil two.txt"\n', 2),
        ("--pre -e ./evil\n", 2),
        ("--edit ./evil\n", 2),
        ("--no-binary :all:\n", 2),
        ("--only-binary :none:\n", 2),
        ("-r ${FILE}\n", 2),
        ("${EVIL}\n", 5),
        ("-e ./evil\n", 5),
        ("acme-demo==1.0\x0bx\n", 2),
        ("acme-==1.0 --hash=sha256:" + EVIL + "\n", 5),
    ],
)
def test_what_pip_reads_in_requirements_is_verified_or_refused(
    project: Project, line: str, code: int
) -> None:
    """pip takes abbreviations, several options on a line, quotes and variables; we take plain lines."""
    path = project.folder / "requirements.txt"
    (project.folder / "evil.txt").write_text(EVIL_LINE)
    (project.folder / "evil two.txt").write_text(EVIL_LINE)
    path.write_text(path.read_text() + line)
    project.refuse(code, PIP)


@pytest.mark.parametrize(
    "command", [PIP, ["uv", "pip", "install", "--require-hashes", "-r", "requirements.txt"]]
)
@pytest.mark.parametrize("name", ["http://evil.test/more.txt", "HTTPS:evil.test/more.txt", "file:/evil.txt"])
def test_requirements_that_an_installer_fetches_are_refused(
    project: Project, name: str, command: list[str]
) -> None:
    """`-r http://...` in a file is an address to pip and uv; to us it was a folder that may lie beside it."""
    path = project.folder / "requirements.txt"
    decoy = project.folder / name
    decoy.parent.mkdir(parents=True, exist_ok=True)
    decoy.write_text("# nothing\n")
    path.write_text(f"{path.read_text()}-r {name}\n")
    project.refuse(2, command, "fetch")


def test_a_command_that_names_a_file_by_its_address_is_refused(project: Project) -> None:
    """pip reads `file:/x` as /x; here lies a decoy of that very name."""
    (project.folder / "file:").mkdir()
    (project.folder / "file:" / "more.txt").write_text("# nothing\n")
    project.refuse(5, ["pip", "install", "--require-hashes", "-r", "file:/more.txt"], "elsewhere")


@pytest.mark.parametrize(
    "tail",
    [
        f" --hash=sha512:{'e' * 128}",
        f" --hash sha256:{EVIL}",
        f" --ha\\\nsh=sha256:{EVIL}",
        f" --has=sha256:{EVIL}",
        f' ; python_version > "3" --has=sha256:{EVIL}',
    ],
)
def test_a_second_hash_is_as_good_as_the_first(project: Project, wheel: Published, tail: str) -> None:
    """An installer takes a file with any one of the hashes, so each must be logged."""
    good = f" --hash=sha256:{wheel.sha256}"
    text = f"acme-demo==1.0{tail}{good}\n" if ";" in tail else f"acme-demo==1.0{good}{tail}\n"
    (project.folder / "requirements.txt").write_text(text)
    project.refuse(5, PIP)


def test_requirements_in_another_encoding_are_refused(project: Project) -> None:
    """pip obeys a declared encoding, in which a comment of ours is a line of its."""
    text = "# -*- coding: utf-7 -*-\n# +AAo-" + EVIL_LINE
    (project.folder / "requirements.txt").write_text(text)
    project.refuse(2, PIP, "utf-7")


@pytest.mark.parametrize(
    "command",
    [
        [*PIP, "--no-require-hashes"],
        [*PIP, "--no-binary", ":all:"],
        [*PIP, "--no-binary=acme-demo"],
        [*PIP, "--only-binary=:none:"],
        [*PIP, "--isolated"],
        [*PIP, "--requirem=evil.txt"],
        [*PIP, "-qrevil.txt"],
        [*PIP, "--group", "dev"],
        [*PIP, "--edit=."],
        ["pip", "--python", "other", *PIP[1:]],
        ["pip", "install", "--log", "--require-hashes", "-r", "requirements.txt"],
        ["uv", "pip", "install", "-r", "pylock.txt"],
        ["uv", "pip", "sync", "--overrides", "evil.txt", "--require-hashes", "requirements.txt"],
        [*UV, "--no-binary"],
        [*UV, "--no-frozen"],
        [*UV, "--script", "evil.py"],
        [*UV, "--config-file", "evil.toml"],
    ],
    ids=" ".join,
)
def test_an_option_that_changes_what_is_installed_is_refused(project: Project, command: list[str]) -> None:
    """Known by their effect, or not known at all."""
    (project.folder / "evil.txt").write_text(EVIL_LINE)
    (project.folder / "pylock.txt").write_text((project.folder / "requirements.txt").read_text())
    project.refuse(5, command)


@pytest.mark.parametrize("option", [["--directory", "other"], ["--directory=other"]])
def test_the_folder_uv_goes_to_is_where_the_lock_is_read(project: Project, option: list[str]) -> None:
    """A good file here, a bad one where uv looks."""
    other = project.folder / "other"
    other.mkdir()
    (other / "requirements.txt").write_text(EVIL_LINE)
    finished = project.run(["uv", "pip", "sync", *option, "--require-hashes", "requirements.txt"])
    assert (finished.exit_code, finished.whose) == (5, "countermark")
    assert project.started == []


def test_a_decoy_lock_is_not_the_one_uv_reads(project: Project, world: World, wheel: Published) -> None:
    """uv takes the lock of the nearest project, or of its workspace: a good lock elsewhere proves nothing."""
    bad = project.uv_lock(wheel, sha256=EVIL).read_text()
    good = bad.replace(EVIL, wheel.sha256)
    plain = project.folder / "docs"  # no project: uv goes up
    member = project.folder / "packages" / "member"  # of the workspace above: uv goes up, too
    for folder in (plain, member):
        folder.mkdir(parents=True)
        (folder / "uv.lock").write_text(good)
    (member / "pyproject.toml").write_text("[project]\n")
    (project.folder / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    for folder in (plain, member):
        todo = plan(UV, folder=folder)
        report = verify_locks(todo.locks, project.machine.registry, world, now=world.now, policies=Policies())
        assert report.exit_code == 7, folder


@pytest.mark.parametrize(
    ("members", "read"),
    [
        ('["packages/*"]', 2),
        ('["./packages/**"]', 2),
        ('["../x"]', 2),
        ('["**/packages/inner"]', 2),
        ('["packages/**/inner"]', 2),
        ('"packages/*"', 2),
        ('["libs/*"]', 1),
        ("[]", 1),
    ],
)
def test_a_workspace_counts_only_for_what_it_may_hold(
    project: Project, wheel: Published, members: str, read: int
) -> None:
    """A project that happens to lie inside somebody's workspace has its own lock, and uv reads no other."""
    good = project.uv_lock(wheel).read_text()
    inner = project.folder / "packages" / "inner"
    inner.mkdir(parents=True)
    (inner / "uv.lock").write_text(good)
    (inner / "pyproject.toml").write_text("[project]\n")
    (project.folder / "pyproject.toml").write_text(f"[tool.uv.workspace]\nmembers = {members}\n")
    assert len(plan(UV, folder=inner).locks) == read


def test_a_project_behind_a_link_is_read_where_uv_reads_it(project: Project, wheel: Published) -> None:
    """uv goes up from `--project` by its name, so a link leads to other folders than where its target lies."""
    bad = project.uv_lock(wheel, sha256=EVIL).read_text()
    decoy = project.folder / "decoy" / "app"
    decoy.mkdir(parents=True)
    (decoy / "pyproject.toml").write_text("[project]\n")
    (decoy / "uv.lock").write_text(bad.replace(EVIL, wheel.sha256))
    (project.folder / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["packages/*"]\n')
    (project.folder / "packages").mkdir()
    (project.folder / "packages" / "app").symlink_to(decoy)
    project.refuse(7, [*UV, "--project", "packages/app"])
    project.refuse(5, [*UV, "--project", "packages/app/../app"], "link")


def test_the_old_name_of_a_package_hides_nothing(project: Project, wheel: Published) -> None:
    """uv still reads `[[distribution]]`, its first spelling of `[[package]]`."""
    lock = project.uv_lock(wheel, sha256=EVIL)
    lock.write_text(lock.read_text().replace("[[package]]", "[[distribution]]"))
    project.refuse(2, UV, "distribution")


@pytest.mark.parametrize(("name", "table"), [("uv.toml", ""), ("pyproject.toml", "[tool.uv]\n")])
def test_a_project_names_no_python_to_download(project: Project, name: str, table: str) -> None:
    """uv would fetch that list, then an interpreter with whatever hash it says, and run it before it installs."""
    path = project.folder / name
    before = path.read_text() if path.exists() else ""
    path.write_text(f'{before}{table}python-downloads-json-url = "https://evil.test/list.json"\n')
    project.refuse(5, UV, "python-downloads-json-url")
    assert project.run([*UV, "--no-config"]).exit_code == 0


def test_a_source_of_two_kinds_is_refused(project: Project, wheel: Published) -> None:
    """uv takes the first kind it knows; a `virtual` beside it would have hidden the package from us."""
    lock = project.uv_lock(wheel, sha256=EVIL)
    lock.write_text(lock.read_text().replace("{ registry", '{ virtual = ".", registry'))
    project.refuse(2, UV, "registry and virtual")


@pytest.mark.parametrize(
    ("option", "folder", "members"),
    [
        ("--no-install-project", ".", []),
        ("--no-install-project", "vendor/x", ["app"]),
        ("--no-install-workspace", "vendor/x", ["app"]),
        ("--no-install-workspace", "vendor/x", ["loose"]),
        ("--no-install-local", "../x", []),
    ],
)
def test_only_folders_that_are_left_out_go_unverified(
    project: Project, wheel: Published, option: str, folder: str, members: list[str]
) -> None:
    """`--no-install-project` leaves out the project, not the other folders it needs."""
    extra = f'[[package]]\nname = "loose"\nversion = "1"\nsource = {{ editable = "{folder}" }}\n'
    extra += f"[manifest]\nmembers = {members}\n"
    project.uv_lock(wheel, extra=extra)
    if members != ["app"]:
        assert project.run([*UV, option]).exit_code == 0
    else:
        project.refuse(5, [*UV, option], "not provable: loose")


@pytest.mark.parametrize("name", ["uv.toml", "pyproject.toml"])
def test_settings_changed_by_the_child_are_evidence(project: Project, name: str) -> None:
    """Lock and configuration are hashed before and after."""
    project.during = lambda: (project.folder / name).write_text("# changed\n")
    finished = project.run(UV)
    assert (finished.exit_code, finished.whose) == (7, "countermark")


@pytest.mark.parametrize(
    "command",
    [
        ["uv", "-q", "pip", "sync", "--require-hashes", "requirements.txt"],
        ["python", "-m", "uv", "pip", "sync", "--require-hashes", "requirements.txt"],
    ],
    ids=" ".join,
)
def test_settings_of_uv_pip_never_turn_hashes_off(project: Project, command: list[str]) -> None:
    """`verify-hashes = false` in a uv.toml is not read, however the command is spelled."""
    assert project.run(command).exit_code == 0
    assert project.started[0][1]["UV_NO_CONFIG"] == "1"


def test_the_child_gets_no_variable_that_could_change_what_is_installed(project: Project) -> None:
    """Everything of pip's and uv's is cleared unless it is known to be harmless; our passphrase goes, too."""
    bad = (
        "PIP_NO_BINARY",
        "PIP_NO_REQUIRE_HASHES",
        "PIP_PYTHON",
        "UV_NO_BINARY",
        "UV_NEW_IN_2030",
        "UV_SCRIPT",
    )
    good = {"PIP_CACHE_DIR": "/c", "UV_CACHE_DIR": "/c", "UV_INDEX_MINE_PASSWORD": "p", "PATH": "/bin"}
    environment = dict.fromkeys(bad, "1") | good | {"COUNTERMARK_PASSPHRASE": "secret"}
    project.run(PIP, environment=environment)
    (_, child), said = project.started[0], project.said[-1]
    assert not set(bad) & child.keys() and good.items() <= child.items()
    assert all(name in said for name in bad)
    assert "secret" not in str(child) and "secret" not in said


def _empty(project: Project) -> None:
    (project.folder / "uv.lock").write_text("version = 1\n")


def _git(project: Project) -> None:
    lock = project.folder / "uv.lock"
    git = '[[package]]\nname = "loose"\nversion = "1"\nsource = { git = "https://git.test/x" }\n'
    lock.write_text(lock.read_text() + git)


@pytest.mark.parametrize(("change", "code"), [(_empty, 0), (_git, 5)])
def test_a_lock_with_something_unprovable_is_not_verified(
    project: Project, world: World, change: Callable[[Project], None], code: int
) -> None:
    """`verify uv.lock` drops nothing; and where nothing was looked at, nothing is verified."""
    change(project)
    locks = plan(UV, folder=project.folder).locks
    report = verify_locks(locks, project.machine.registry, world, now=world.now, policies=Policies())
    assert report.exit_code == code
    assert report.to_json()["verified"] is False
