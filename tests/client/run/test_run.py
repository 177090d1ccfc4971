"""run.py: which commands are taken, what is verified before the child starts, and whose exit code it is."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from countermark import run
from countermark.clientpolicy import Policies
from countermark.errors import PolicyError, UsageError
from countermark.installers import plan
from tests.machine import artifact
from tests.project import Project
from tests.simulator import Published, World

UV_SYNC = ["uv", "sync", "--frozen"]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def project(tmp_path: Path, world: World) -> Project:
    return Project(tmp_path, world)


COMMANDS = [
    UV_SYNC,
    ["pip", "install", "--require-hashes", "-r", "requirements.txt"],
    ["python", "-m", "pip", "install", "--force-reinstall", "--require-hashes", "-r", "requirements.txt"],
    ["/usr/bin/python3.11", "-m", "pip", "install", "--require-hashes", "--requirement=requirements.txt"],
    ["uv", "pip", "sync", "--require-hashes", "requirements.txt"],
    ["uv", "pip", "install", "--require-hashes", "-rrequirements.txt"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_verified_lock_starts_the_installer(project: Project, world: World, command: list[str]) -> None:
    """Every hash is logged for its project and version: the child runs, its code is ours to pass on."""
    files = world.publish("acme-demo"), world.publish("other-demo", "2.0")
    project.uv_lock(*files)
    project.requirements(*files)
    project.child_code = 3
    finished = project.run(command)
    assert (finished.exit_code, finished.whose) == (3, command[0])
    assert project.started[0][0] == command
    assert "2 hashes" in project.said[0] and world.base in project.said[0]


@pytest.mark.parametrize("command", COMMANDS[:3], ids=" ".join)
def test_a_lock_made_after_the_swap_is_refused(project: Project, world: World, command: list[str]) -> None:
    """The insider's swap, met by a lock that pins the swapped bytes: both hashes and the entry are named."""
    file = world.publish("acme-demo")
    swapped = artifact(file, data=b"swapped").sha256
    world.pages["acme-demo"][file.filename] = swapped
    project.uv_lock(file, sha256=swapped)
    project.requirements(file, sha256=swapped)
    project.refuse(7, command, file.sha256, swapped, f"entry #{file.index}", "not started")
    # The insider tidies up: the page shows the true hash again, the lock still pins the swapped one.
    world.pages["acme-demo"][file.filename] = file.sha256
    project.refuse(7, command, file.sha256, swapped)


def test_a_pin_for_another_version_is_refused(project: Project, world: World) -> None:
    """A logged hash, pinned as another version of the project."""
    file = world.publish("acme-demo")
    (project.folder / "requirements.txt").write_text(f"acme-demo==9.0 --hash=sha256:{file.sha256}\n")
    project.refuse(5, COMMANDS[1], "no entry")
    text = project.uv_lock(file).read_text().replace('version = "1.0"', 'version = "9.0"')
    (project.folder / "uv.lock").write_text(text)
    project.refuse(7, UV_SYNC, "9.0 was asked for")


def test_a_withdrawn_file_is_refused_even_before_tuf_shows_it(project: Project, world: World) -> None:
    """A hold in the log, not applied yet."""
    file = world.publish("acme-demo")
    project.uv_lock(file)
    world.decide("hold", file, "malware")
    world.heartbeat()
    project.refuse(6, UV_SYNC, "hold by entry")


def test_an_unknown_package_is_refused(project: Project, world: World) -> None:
    """A pin for something this registry has no entry for."""
    file = world.publish("acme-demo")
    stranger = Published("pypi-thing", "1.0", "pypi_thing-1.0-py3-none-any.whl", b"x", 0)
    project.uv_lock(file, stranger)
    project.refuse(5, UV_SYNC, "no entry for pypi_thing")
    project.requirements(file, stranger)
    project.refuse(5, COMMANDS[1], "no entry for pypi-thing==1.0")


@pytest.mark.parametrize(
    "source",
    ['{ git = "https://git.test/x" }', '{ url = "https://x.test/x.whl" }', '{ editable = "." }'],
)
def test_sources_without_a_hash_are_refused_where_policy_enforces(
    project: Project, world: World, source: str
) -> None:
    """git, URL and folders: not provable."""
    extra = f'[[package]]\nname = "loose"\nversion = "1"\nsource = {source}\n'
    project.uv_lock(world.publish("acme-demo"), extra=extra)
    project.refuse(5, UV_SYNC, "not provable: loose")


def test_the_own_folder_does_not_count_when_it_is_left_out(project: Project, world: World) -> None:
    """`--no-install-project` builds nothing."""
    extra = '[[package]]\nname = "app"\nversion = "1"\nsource = { editable = "." }\n'
    project.uv_lock(world.publish("acme-demo"), extra=extra)
    assert project.run([*UV_SYNC, "--no-install-project"]).exit_code == 0


def test_sources_without_a_hash_are_listed_where_policy_warns(tmp_path: Path) -> None:
    """Let pass, named in the one line and in the result."""
    world = World(mode="warn")
    project = Project(tmp_path, world)
    extra = '[[package]]\nname = "loose"\nversion = "1"\nsource = { git = "https://git.test/x" }\n'
    project.uv_lock(world.publish("acme-demo"), extra=extra)
    finished = project.run(UV_SYNC)
    assert finished.exit_code == 0 and "not provable: loose" in project.said[0]
    assert "UV_NO_BUILD" not in project.started[0][1]


@pytest.mark.parametrize(
    "command",
    [
        ["uv", "add", "x"],
        ["uv", "run", "--frozen", "x"],
        ["uv", "pip", "install", "x", "--index-url", "https://evil.test/simple/"],
        ["uv", "pip", "install", "x @ https://evil.test/x.whl"],
        ["uv", "pip", "install", "./x"],
        ["uv", "pip", "sync", "requirements.txt"],
        ["pip", "install", "x", "--extra-index-url", "https://evil.test/simple/"],
        ["pip", "install", "x", "-f", "wheels"],
        ["pip", "install", "x", "--no-index"],
        ["pip", "install", "x", "--proxy", "http://evil.test"],
        ["pip", "install", "x-1.0-py3-none-any.whl"],
        ["pip", "install", "x.zip[extra]"],
        ["pip", "install", "git+https://evil.test/x"],
        ["pip", "install", "x", "-r", "requirements.txt"],
        ["pip", "install", "-r", "requirements.txt"],
        ["pip", "install", "--require-hashes", "-r", "requirements.txt", "x"],
        ["pip", "install", "--require-hashes", "-e", ".", "-r", "requirements.txt"],
        ["pip", "install", "--require-hashes", "-r", "https://x.test/requirements.txt"],
        ["pip", "download", "x"],
        ["uv", "pip", "sync", "--no-verify-hashes", "pylock.toml"],
        ["python", "setup.py", "install"],
        ["npm", "install"],
        ["poetry", "add", "x"],
    ],
    ids=" ".join,
)
def test_what_pins_no_hashes_is_refused_with_what_to_do(
    project: Project, world: World, command: list[str]
) -> None:
    """Exit 5 and a sentence; nothing is asked of the network."""
    project.requirements(world.publish("acme-demo"))
    asked = len(world.asked)
    project.refuse(5, command)
    assert len(world.asked) == asked
    with pytest.raises(PolicyError) as error:
        plan(command, folder=project.folder)
    assert error.value.hint


def test_nothing_to_run_and_missing_locks_are_usage_errors(project: Project) -> None:
    """Exit 2."""
    for command in ([], UV_SYNC, COMMANDS[1]):
        with pytest.raises(UsageError):
            plan(command, folder=project.folder)


def test_a_lock_changed_by_the_child_is_evidence(project: Project, world: World) -> None:
    """The child ends with 0 and has rewritten the lock: 7."""
    lock = project.uv_lock(world.publish("acme-demo"))
    project.during = lambda: lock.write_text("version = 1\n")
    finished = project.run(UV_SYNC)
    assert (finished.exit_code, finished.whose) == (7, "countermark")
    assert "was changed" in finished.sentences[0]


def test_a_lock_changed_while_it_is_verified_is_refused(project: Project, world: World) -> None:
    """Between reading and starting: the child never runs."""
    lock = project.uv_lock(world.publish("acme-demo"))
    todo = plan(UV_SYNC, folder=project.folder)
    lock.write_text("version = 1\n")
    finished = run.run(
        todo, project.proxy(), project.machine.registry, world, now=world.now, policies=Policies(),
        environment={}, say=print,
        start=lambda *_: pytest.fail("started"),
    )  # fmt: skip
    assert (finished.exit_code, finished.whose) == (7, "countermark")


def test_other_index_settings_are_cleared_and_named(project: Project, world: World) -> None:
    """The child's only index is the proxy; whatever the environment said is gone, and said."""
    project.uv_lock(world.publish("acme-demo"))
    environment = {
        "PATH": "/bin",
        "PIP_EXTRA_INDEX_URL": "https://evil.test/simple/",
        "UV_INDEX": "https://evil.test/simple/",
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_VERIFY_HASHES": "1",
        "PIP_REQUIREMENT": "evil.txt",
        "UV_PROJECT": "evil",
    }
    project.run(UV_SYNC, environment=environment)
    (_, child), said = project.started[0], project.said[0]
    assert not [value for value in child.values() if "evil" in value]
    index = child["PIP_INDEX_URL"]
    assert child["UV_DEFAULT_INDEX"] == index and re.fullmatch(r"http://127\.0\.0\.1:\d+/simple/", index)
    assert f"the only index is {index[:-8]}" in said
    assert child["UV_NO_BUILD"] == "1" and child["PATH"] == "/bin"
    assert "cleared PIP_EXTRA_INDEX_URL, PIP_REQUIREMENT, UV_INDEX, UV_NO_VERIFY_HASHES, UV_PROJECT" in said
    assert "UV_NO_CONFIG" not in child and "UV_NO_VERIFY_HASHES" not in child
    project.requirements(world.publish("other-demo"))
    project.run(["uv", "pip", "sync", "--require-hashes", "requirements.txt"])
    assert project.started[1][1]["UV_NO_CONFIG"] == "1"


def ask(index: str, path: str) -> tuple[int, bytes]:
    """What an installer gets for a URL below its index."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(index[:-7] + path, headers={"Accept": "application/json, text/html"})
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_what_the_lock_does_not_pin_comes_through_the_proxy(project: Project, world: World) -> None:
    """A build's tools are verified and reported; one that was swapped makes it 7, whatever the child says."""
    pinned, tool, swapped = (world.publish(name) for name in ("acme-demo", "tool-demo", "swapped-demo"))
    world.packages[f"swapped-demo/{swapped.filename}"] = b"swapped"
    project.uv_lock(pinned)

    def child(*files: Published) -> Callable[[], None]:
        def during() -> None:
            index = project.started[-1][1]["UV_DEFAULT_INDEX"]
            for file in files:
                status, body = ask(index, f"packages/{file.project}/{file.filename}")
                assert (status, body == file.data) == ((409, False) if file is swapped else (200, True))

        return during

    lock = (project.folder / "uv.lock").read_bytes()
    project.during = child(tool, pinned)
    finished = project.run(UV_SYNC)
    assert (finished.exit_code, finished.whose) == (0, "uv")
    assert [o.artifact.filename for o in finished.report.outcomes] == [pinned.filename, tool.filename]
    project.during = child(swapped)
    finished = project.run(UV_SYNC)
    assert (finished.exit_code, finished.whose) == (7, "countermark")
    assert any(swapped.sha256 in line for line in project.said)
    assert (project.folder / "uv.lock").read_bytes() == lock


def test_the_proxy_ends_with_the_child(project: Project, world: World) -> None:
    """Nothing listens afterwards."""
    project.uv_lock(world.publish("acme-demo"))
    project.run(UV_SYNC)
    with pytest.raises(OSError):
        ask(project.started[0][1]["UV_DEFAULT_INDEX"], "simple/acme-demo/")


def test_a_web_proxy_does_not_stand_before_the_index(project: Project, world: World) -> None:
    """It stays for what the lock names by URL; the address of this machine is left out of it."""
    file = world.publish("acme-demo")
    project.uv_lock(file)
    project.requirements(file)
    web = "http://proxy.test:3128"
    for no_proxy, wanted in (
        ({}, "127.0.0.1"),
        ({"NO_PROXY": "x.test"}, "x.test,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ):
        project.run(UV_SYNC, environment={"HTTPS_PROXY": web, **no_proxy})
        child = project.started[-1][1]
        assert child["HTTPS_PROXY"] == web and child.get("no_proxy") == wanted
    project.run(COMMANDS[1], environment={"PIP_PROXY": web})
    child = project.started[-1][1]
    assert "PIP_PROXY" not in child and child["https_proxy"] == child["HTTP_PROXY"] == web
    assert child["NO_PROXY"] == "127.0.0.1"
    with pytest.raises(PolicyError, match="stands between"):
        plan([*COMMANDS[1], "--proxy", web], folder=project.folder)


def test_caches_are_kept_where_only_pinned_urls_are_fetched(project: Project, world: World) -> None:
    """uv.lock names URLs; requirements ask the index, whose port is another each time."""
    file = world.publish("acme-demo")
    project.uv_lock(file)
    project.requirements(file)
    project.run(UV_SYNC)
    project.run(COMMANDS[4])
    project.run(COMMANDS[1])
    assert ["UV_NO_CACHE" in env for _, env in project.started] == [False, True, True]
    assert "PIP_NO_CACHE_DIR" in project.started[2][1]


BUILDS = '[build-system]\nrequires = ["hatchling>=1", "Other_Tool"]\nbuild-backend = "hatchling.build"\n'


def test_a_build_that_policy_lets_pass_asks_the_proxy_alone(tmp_path: Path) -> None:
    """uv's configuration could name other indexes for it: it is not read."""
    world = World(mode="warn")
    project = Project(tmp_path, world)
    (project.folder / "pyproject.toml").write_text(
        BUILDS + '[[tool.uv.index]]\nurl = "https://evil.test/simple/"\n'
    )
    extra = '[[package]]\nname = "app"\nversion = "1"\nsource = { editable = "." }\n'
    project.uv_lock(world.publish("acme-demo"), extra=extra)
    assert project.run(UV_SYNC).exit_code == 0
    _, child = project.started[0]
    assert (child["UV_NO_CONFIG"], child["UV_NO_CACHE"]) == ("1", "1") and "UV_NO_BUILD" not in child


@pytest.mark.parametrize(
    ("pyproject", "command", "words"),
    [
        (
            BUILDS + '[tool.uv.sources]\nother-tool = { index = "x" }\n',
            UV_SYNC,
            "other-tool in tool.uv.sources",
        ),
        (
            '[build-system]\nrequires = ["x @ https://evil.test/x.whl"]\n',
            UV_SYNC,
            "https://evil.test/x.whl",
        ),
        (BUILDS, [*UV_SYNC, "--index", "https://evil.test/simple/"], "--index https://evil.test/simple/"),
    ],
)
def test_a_build_that_takes_tools_past_the_proxy_is_refused_in_every_mode(
    tmp_path: Path, pyproject: str, command: list[str], words: str
) -> None:
    """Sources and URLs of build requirements, and other indexes on the command line."""
    world = World(mode="warn")
    project = Project(tmp_path, world)
    (project.folder / "pyproject.toml").write_text(pyproject)
    extra = '[[package]]\nname = "app"\nversion = "1"\nsource = { editable = "." }\n'
    project.uv_lock(world.publish("acme-demo"), extra=extra)
    project.refuse(5, command, words, "elsewhere than the verifying index")
    if command == UV_SYNC:  # left out, it is not built, and nothing is asked for it
        assert project.run([*UV_SYNC, "--no-install-project"]).exit_code == 0


def test_a_child_that_does_not_exist_is_a_usage_error(project: Project, world: World) -> None:
    """And says which program."""
    project.requirements(world.publish("acme-demo"))
    todo = plan(["pip99.9", "install", "--require-hashes", "-r", "requirements.txt"], folder=project.folder)
    with pytest.raises(UsageError, match=r"no program .pip99\.9"):
        run.run(
            todo, project.proxy(), project.machine.registry, world, now=world.now, policies=Policies(),
            environment=dict(os.environ), say=print,
        )  # fmt: skip
