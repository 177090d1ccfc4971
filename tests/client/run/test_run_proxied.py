"""run.py without a lock: the child has one way out, the proxy, and what that refused decides the exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from countermark import run
from countermark.clientpolicy import ClientPolicy, Exemption, Policies
from countermark.errors import CountermarkError, NetworkError, PolicyError, UsageError
from countermark.filestore import FileStore
from countermark.installers import plan
from countermark.proxy import Proxy
from tests.project import Project
from tests.simulator import Published, World

PIP = ["pip", "install", "acme-demo"]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def project(tmp_path: Path, world: World) -> Project:
    return Project(tmp_path, world)


def proxied(
    project: Project,
    child: Callable[[str, Mapping[str, str]], int],
    command: Sequence[str] = PIP,
    environment: Mapping[str, str] | None = None,
    policies: Policies | None = None,
) -> run.Finished:
    """Run a child that is a function of its index and its environment."""
    registry, world = project.machine.registry, project.world

    def start(words: Sequence[str], env: Mapping[str, str]) -> int:
        project.started.append((list(words), dict(env)))
        return child(env["PIP_INDEX_URL"], env)

    proxy = Proxy(
        registry, world, FileStore(project.folder.parent / "store"),
        policies=policies or Policies(), clock=lambda: world.now, say=project.said.append,
    )  # fmt: skip
    todo = plan(command, folder=project.folder)
    return run.run_proxied(
        todo, proxy, registry, environment=environment or {}, say=project.said.append, start=start,
        remarks=["said before"],
    )  # fmt: skip


def fetch(index: str, file: Published) -> int:
    """What an installer does: page, then file. 1 when it is refused."""
    request = urllib.request.Request(f"{index}{file.project}/", headers={"Accept": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        assert "files" in json.load(answer)
    try:
        with opener.open(f"{index[:-7]}packages/{file.project}/{file.filename}", timeout=10) as answer:
            assert answer.read() == file.data
    except urllib.error.HTTPError as error:
        assert error.code in (403, 409) and "exit-" in error.reason
        return 1
    return 0


COMMANDS = [
    PIP,
    ["python", "-m", "pip", "install", "-U", "acme-demo[extra]>=1,<2", "other==1.0"],
    ["uv", "pip", "install", "acme-demo"],
    ["uv", "sync"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_child_gets_verified_files_and_its_own_exit_code(
    project: Project, world: World, command: list[str]
) -> None:
    """Everything held: the report names what was served."""
    file = world.publish("acme-demo")
    finished = proxied(project, lambda index, _: fetch(index, file), command)
    assert (finished.exit_code, finished.whose) == (0, command[0])
    document = finished.to_json()
    assert document["verified"] and [item["filename"] for item in document["artifacts"]] == [file.filename]
    assert world.base in project.said[0]


def test_the_result_shows_the_exceptions_in_force(project: Project, world: World) -> None:
    """Beside what was said before the child started."""
    file, excused = world.publish("acme-demo"), Exemption("acme-old", "moves", "ops", world.now + 86400)
    lenient = Policies(local=ClientPolicy(exceptions=(excused,)))
    finished = proxied(project, lambda index, _: fetch(index, file), policies=lenient)
    assert finished.to_json()["remarks"] == ["said before", excused.sentence()]


def test_what_was_false_wins_over_a_child_that_ends_with_nought(project: Project, world: World) -> None:
    """7, and 6 likewise; 5 leaves the child its own code."""
    file, held = world.publish("acme-demo"), world.publish("other-demo")
    world.packages[f"acme-demo/{file.filename}"] = b"swapped"
    finished = proxied(project, lambda index, _: fetch(index, file) * 0)
    assert (finished.exit_code, finished.whose) == (7, "countermark")
    assert any(file.sha256 in line for line in project.said)
    world.decide("hold", held, "malware")
    world.heartbeat()
    finished = proxied(project, lambda index, _: fetch(index, held) * 0)
    assert (finished.exit_code, finished.whose) == (6, "countermark")
    unsigned = world.publish("third-demo", signed=False)
    finished = proxied(project, lambda index, _: fetch(index, unsigned))
    assert (finished.exit_code, finished.whose) == (1, "pip")
    assert finished.report.exit_code == 5


def test_the_child_has_no_way_out_but_the_proxy(project: Project, world: World) -> None:
    """Other indexes, web proxies, caches and configuration are gone; other hosts cannot be asked."""
    world.publish("acme-demo")
    environment = {
        "PATH": "/bin",
        "PIP_EXTRA_INDEX_URL": "https://evil.test/simple/",
        "PIP_PROXY": "http://evil.test",
        "https_proxy": "http://evil.test",
        "NO_PROXY": "evil.test",
        "UV_INDEX": "https://evil.test/simple/",
        "UV_CACHE_DIR": "/cache",
        "UV_HTTP_TIMEOUT": "7",
        "COUNTERMARK_PASSPHRASE": "secret",
    }

    def child(index: str, env: Mapping[str, str]) -> int:
        assert not [value for value in env.values() if "evil" in value or value == "secret"]
        assert env["UV_DEFAULT_INDEX"] == index and index.startswith("http://127.0.0.1:")
        assert (env["PIP_TIMEOUT"], env["UV_HTTP_TIMEOUT"]) == ("120", "7")
        assert (env["UV_NO_CACHE"], env["UV_NO_CONFIG"], env["PIP_CONFIG_FILE"]) == ("1", "1", os.devnull)
        ways = urllib.request.ProxyHandler({"http": env["HTTP_PROXY"], "https": env["HTTPS_PROXY"]})
        for url in ("http://evil.test/x.whl", "https://evil.test/x.whl"):
            with pytest.raises(OSError):
                urllib.request.build_opener(ways).open(url, timeout=10)
        return 0

    assert proxied(project, child, environment=environment).exit_code == 0
    assert "cleared PIP_EXTRA_INDEX_URL, UV_INDEX" in project.said[0]


def test_git_is_no_way_out(project: Project, world: World) -> None:
    """`acme @ git+git://...` in a package's metadata makes pip call git, which asks web proxies for http alone."""
    world.publish("acme-demo")
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        url = f"git://127.0.0.1:{other.getsockname()[1]}/x"

        def child(_: str, env: Mapping[str, str]) -> int:
            return subprocess.run(["git", "ls-remote", url], env=env, check=False, timeout=5).returncode

        assert proxied(project, child, environment={"PATH": os.environ["PATH"]}).exit_code
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_first_sync_leaves_a_lock_that_names_the_registry(project: Project, world: World) -> None:
    """The proxy is gone when the lock is used."""
    world.publish("acme-demo")
    lock = project.folder / "uv.lock"

    def child(index: str, _: Mapping[str, str]) -> int:
        lock.write_text(f'source = {{ registry = "{index}" }}\nurl = "{index}../packages/x"\n')
        return 0

    proxied(project, child, ["uv", "sync"])
    assert lock.read_text() == (
        f'source = {{ registry = "{world.base}/simple/" }}\nurl = "{world.base}/simple/../packages/x"\n'
    )
    lock.write_text("version = 1\n")
    assert plan(["uv", "sync"], folder=project.folder).is_pinned, (
        "from now on it is verified, and not changed"
    )


@pytest.mark.parametrize(
    "text",
    [
        '[project]\ndependencies = ["x @ https://evil.test/x.whl"]\n',
        '[project.optional-dependencies]\na = ["x@git+https://evil.test/x"]\n',
        '[dependency-groups]\ndev = ["x @ file:///x.whl"]\n',
        '[tool.uv.sources]\nx = { git = "https://evil.test/x" }\n',
        '[tool.uv]\noverride-dependencies = ["x @ https://evil.test/x.whl"]\n',
        '[build-system]\nrequires = ["x @ https://evil.test/x.whl"]\n',
        '[build-system]\nrequires = []\nbackend-path = ["."]\n',
        "[tool.uv.workspace]\nmembers = ['a']\n",
    ],
)
def test_a_project_that_takes_things_from_elsewhere_is_synced_from_its_lock(
    project: Project, world: World, text: str
) -> None:
    """URLs, repositories, folders, workspaces: no index is asked for those."""
    (project.folder / "pyproject.toml").write_text(text)
    with pytest.raises(PolicyError) as error:
        plan(["uv", "sync"], folder=project.folder)
    assert "--frozen" in str(error.value.hint) and world.asked == []


def test_without_a_view_the_child_never_starts(project: Project, world: World) -> None:
    """Unreachable, or another registry's keys."""
    world.publish("acme-demo")
    world.down = lambda path: True
    with pytest.raises(NetworkError):
        proxied(project, lambda *_: 0)
    world.down = lambda path: False
    other = World(keys="other")
    project.world = other
    with pytest.raises(CountermarkError) as error:
        proxied(project, lambda *_: 0)
    assert error.value.exit_code == 7 and project.started == []


def test_a_plan_without_locks_is_never_run_without_the_proxy(project: Project, world: World) -> None:
    """The pinned route refuses what pins nothing."""
    with pytest.raises(UsageError):
        project.run(PIP)
    assert project.started == []
