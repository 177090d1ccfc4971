"""The unpinned route over real processes: real pip and real uv install by name, through the verifying proxy."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives
from tests.world.insider import PROJECT, WHEEL, swap
from tests.world.installers import essential, pip, uv
from tests.world.world import World, fresh


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry after its ceremony; alice publishes, bob has pinned the root and installs."""
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.init()
        ceremony = world.ceremony()
        words = world.words(ceremony)
        world.up("--ceremony", ceremony)
        world.login("alice", words)
        dist = world.project(PROJECT)
        world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
        world.run("countermark", "trust", "add", world.url, "--root-words", words, home="bob")
        yield world


@pytest.fixture(scope="module")
def python(world: World) -> Path:
    """Bob's virtual environment."""
    return world.machine("pip-bob")


def test_pip_and_uv_install_by_name(world: World, python: Path) -> None:
    """Nothing is pinned, and every file is verified before the installer has it."""
    for install in (pip, uv):
        done = install(world, python, PROJECT)
        assert world.run(python, "-c", "import hello_countermark").out == "hello\n"
        result = json.loads((world.root / "run.json").read_text("utf-8"))
        assert result["verified"] and [item["filename"] for item in result["artifacts"]] == [WHEEL]
        assert re.search(rf"everything comes through http://127\.0\.0\.1:\d+, from {world.url} ", done.err)
        assert "exit code 0 is" in done.err.splitlines()[-1]


def test_what_was_installed_is_held_against_the_log(world: World) -> None:
    """Clean after the install; an edit that RECORD knows of, and a start-up file, are exit 7 and named."""
    python = world.machine("checked-bob")
    uv(world, python, PROJECT)
    where = python.parents[1]
    check = ("countermark", "verify", "--environment", where)
    done = world.run(*check, "--json", home="bob")
    report = json.loads(done.out)
    assert report["verified"] and [item["filename"] for item in report["artifacts"]] == [WHEEL]
    assert "files here are those of the wheel" in world.run(*check, home="bob").err
    (site,) = where.glob("lib/python*/site-packages")
    module = site / "hello_countermark" / "__init__.py"
    module.write_text("print('changed')\n", encoding="utf-8")
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text("utf-8").splitlines()
        kept = [line for line in lines if not line.startswith("hello_countermark/__init__.py,")]
        record.write_text("\n".join([*kept, "hello_countermark/__init__.py,,", ""]), encoding="utf-8")
    (site / "start.pth").write_text("import hello_countermark\n", encoding="utf-8")
    said = [line for line in world.run(*check, home="bob", expect=7).err.splitlines() if "refused:" in line]
    assert ["start.pth: no wheel" in said[0], "modified: " in said[1], len(said)] == [True, True, 2]


def test_a_first_uv_sync_writes_a_lock_that_installs_without_the_proxy(world: World) -> None:
    """Resolved and installed through the proxy; the lock names the registry, and the pinned route takes it."""
    app = world.root / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        f'[project]\nname = "app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["{PROJECT}"]\n'
        "[tool.uv]\npackage = false\n",
        encoding="utf-8",
    )
    world.run("countermark", "run", "--", "uv", "sync", home="bob", cwd=app)
    lock = (app / "uv.lock").read_text("utf-8")
    assert f'registry = "{world.url}/simple' in lock and f"{world.url}/packages/{PROJECT}/{WHEEL}" in lock
    assert set(re.findall(r"http://127\.0\.0\.1:\d+", lock)) == {world.url}
    before = (app / "uv.lock").read_bytes()
    for again in ((), ("--frozen",)):  # a second plain sync finds the lock that the first has written
        shutil.rmtree(app / ".venv")
        world.run("countermark", "run", "--", "uv", "sync", *again, home="bob", cwd=app)
        assert (app / "uv.lock").read_bytes() == before
    assert world.run(app / ".venv" / "bin" / "python", "-c", "import hello_countermark").out == "hello\n"


def test_requirements_with_hashes_come_through_the_proxy(world: World, python: Path) -> None:
    """Verified before pip and uv start, fetched from the one index they have, and the file is left as it was."""
    wheel = world.root / f"{PROJECT}-1.0.0" / "dist" / WHEEL
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pinned = world.root / "requirements.txt"
    pinned.write_text(f"{PROJECT}==1.0.0 --hash=sha256:{digest}\n", encoding="utf-8")
    before = pinned.read_bytes()
    for installer in (
        (str(python), "-m", "pip", "install", "--force-reinstall", "--no-input"),
        ("uv", "pip", "install", "--reinstall", "--python", str(python)),
    ):
        done = world.run(
            "countermark", "run", "--", *installer, "--require-hashes", "-r", "requirements.txt",
            home="bob", UV_INDEX="http://127.0.0.1:1/simple/", PIP_EXTRA_INDEX_URL="http://127.0.0.1:1/simple/",
        )  # fmt: skip
        assert re.search(
            r"the only index is http://127\.0\.0\.1:\d+; cleared PIP_EXTRA_INDEX_URL, UV_INDEX", done.err
        )
        assert world.run(python, "-c", "import hello_countermark").out == "hello\n"
    assert pinned.read_bytes() == before


BACKEND = b"""
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "built_app-0-py3-none-any.whl"
    info = "built_app-0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as archive:
        archive.writestr("built_app.py", "MADE_BY = 'tinybackend'")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: built-app\\nVersion: 0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
    return name
"""


def test_a_build_takes_its_tools_from_the_proxy_alone(world: World, python: Path) -> None:
    """uv.lock pins no build requirement: policy lets the build pass, and its tool is verified on its way to uv."""
    tool = world.root / "tinybackend-1.0-py3-none-any.whl"
    tool.write_bytes(archives.wheel("tinybackend", "1.0", files={"tinybackend.py": BACKEND}))
    world.run("countermark", "publish", "--yes", tool)
    asked: list[object] = []

    class Asked(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    decoy = socketserver.TCPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=decoy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    app = world.root / "built-app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        f'[project]\nname = "built-app"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["{PROJECT}"]\n'
        '[build-system]\nrequires = ["tinybackend"]\nbuild-backend = "tinybackend"\n',
        encoding="utf-8",
    )
    world.run("uv", "lock", "--default-index", f"{world.url}/simple/", cwd=app, home="bob")
    with (app / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(f'[[tool.uv.index]]\nurl = "http://127.0.0.1:{decoy.server_address[1]}/simple/"\n')
    before = (app / "uv.lock").read_bytes()
    done = world.run(
        "countermark", "run", "--json", "run.json", "--", "uv", "sync", "--frozen",
        cwd=app, home="bob", UV_NO_CONFIG="0",
    )  # fmt: skip
    decoy.shutdown()
    decoy.server_close()
    assert "not provable: built-app" in done.err and asked == []
    made = world.run(app / ".venv" / "bin" / "python", "-c", "import built_app; print(built_app.MADE_BY)")
    assert made.out == "tinybackend\n"
    files = {
        item["filename"]: item for item in json.loads((app / "run.json").read_text("utf-8"))["artifacts"]
    }
    assert files[tool.name]["verified"] is True and WHEEL in files
    assert (app / "uv.lock").read_bytes() == before

    newer = tool.with_name("tinybackend-1.1-py3-none-any.whl")
    newer.write_bytes(archives.wheel("tinybackend", "1.1", files={"tinybackend/__init__.py": BACKEND}))
    world.run("countermark", "publish", "--yes", newer)
    old, new = swap(world, newer, world.root / "swapped-tool")  # an insider swaps the tool's next version
    done = world.run(
        "countermark", "run", "--", "uv", "sync", "--frozen", "--reinstall", cwd=app, home="bob", expect=7
    )
    text = " ".join(essential(done.err).split())
    said = f"{newer.name} is sha256:HASH, entry #N of demo.test/registry says sha256:HASH"
    assert f"countermark: refused: {said}" in text and old in done.err and new in done.err
    assert f"HTTP status client error (409 {said.replace('HASH', 'HASH...')} exit-7 URL/h/exit-7)" in text
    assert text.endswith("countermark: exit code 7 is countermark's")


def test_the_proxy_serves_plain_installers(world: World, python: Path) -> None:
    """`countermark proxy` in a terminal of its own; unmodified pip with its address. It stops when told to."""
    proxy = subprocess.Popen(
        ("countermark", "proxy", "--listen", "127.0.0.1:0"), env=world.env("bob"), text=True,
        cwd=world.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert proxy.stdout is not None
        index = proxy.stdout.readline().strip()
        assert index.endswith("/simple/")
        world.run(python, "-m", "pip", "install", "--force-reinstall", "--no-input", "-i", index, PROJECT)
        world.run(
            "uv", "pip", "install", "--reinstall", "--python", python, "--default-index", index, PROJECT
        )
    finally:
        proxy.terminate()
        _, said = proxy.communicate(timeout=10)
    assert proxy.returncode == 0, said


def test_a_removed_file_is_refused_by_name_and_by_version(world: World, python: Path) -> None:
    """uv finds no such version, pip is told why at the file; both runs end with 6 and the reason."""
    dist = world.project("removed-demo")
    world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    for path in sorted(dist.glob("removed*[lz]")):
        world.run(
            "countermark-server", "takedown", "--data", world.data, "removed-demo", path.name,
            "--reason", "malware",
        )  # fmt: skip
    done = pip(world, python, "removed-demo==1.0.0", expect=6)
    text = essential(done.said)
    said = "removed_demo-1.0.0-py3-none-any.whl, entry #N, is removed: takedown by entry #N (malware)"
    assert f"countermark: refused: {said}" in text
    assert f"403 Client Error: {said} exit-6 URL/h/exit-6 for url: " in text
    assert text.splitlines()[-1] == "countermark: exit code 6 is countermark's"
    done = uv(world, python, "removed-demo", expect=6)
    text = essential(done.err)
    assert f"countermark: refused: {said}" in text
    assert text.splitlines()[-1] == "countermark: exit code 6 is countermark's"


def test_an_unsigned_file_is_refused_by_policy_in_pips_own_words(world: World, python: Path) -> None:
    """403 at the file's URL; it is no evidence of anything false, so the exit code is pip's own."""
    dist = world.project("unsigned-demo")
    (wheel,) = dist.glob("*.whl")
    world.run(
        "twine", "upload", "--non-interactive", "--repository-url", f"{world.url}/legacy/",
        "-u", "__token__", "-p", world.token(), wheel,
    )  # fmt: skip
    world.run("countermark", "status", "--wait", wheel)
    done = pip(world, python, "unsigned-demo==1.0.0", expect=1)
    text = essential(done.said)
    (told,) = {line for line in text.splitlines() if line.startswith("countermark: refused: ")}
    said = told.removeprefix("countermark: refused: ")
    assert said.startswith(wheel.name) and "registry" in said
    assert re.search(rf"403 Client Error: {re.escape(said[:60])}.* exit-5 URL/h/exit-5 for url: ", text)
    assert text.splitlines()[-1] == f"countermark: exit code 1 is {python}'s"
    result = json.loads((world.root / "run.json").read_text("utf-8"))
    assert [item["exit_code"] for item in result["artifacts"]] == [5]
