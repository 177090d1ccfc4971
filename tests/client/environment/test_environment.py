"""environment.py: installs by real pip and uv are clean; whatever was changed after them is found and named."""

from __future__ import annotations

import base64
import copy
import hashlib
import importlib.util
import marshal
import os
import py_compile
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from countermark import bytecode, commands_install
from countermark.clientpolicy import ClientPolicy, Mode, Policies, Rule
from countermark.demands import read_demands
from countermark.environment import verify_environment
from countermark.errors import NetworkError, UsageError
from countermark.filestore import FileStore
from countermark.installed import read_place
from countermark.proxy import Proxy
from countermark.values import replace
from countermark.verified import LetPass, Refused, Report, Verified
from tests import archives
from tests.client.cli.test_progress import Terminal
from tests.machine import Machine
from tests.simulator import Published, World

SOURCE = (
    b"import os\n\nNAMES = frozenset({'a', 'b', 1})\n\n\ndef main(x=(1, 2.5)):\n    return x in {'e', 'f'}\n"
)
FILES = {
    "acme/__init__.py": SOURCE,
    "acme/deep/tool.py": b"class Tool:\n    def run(self):\n        return lambda: [n for n in (1, 10**30, 1j)]\n",
    "acme/data.bin": bytes(range(256)),
    "acme-1.0.data/scripts/acme-script": b"#!python\nprint('from a script')\n",
    "acme-1.0.data/scripts/acme-shell": b"#!/bin/sh\necho plain\n",
    "acme-1.0.data/data/etc/acme.conf": b"colour = blue\n",
    "acme-1.0.data/headers/acme.h": b"#define ACME 1\n",
    "acme-1.0.data/purelib/acme_pure.py": b"PURE = True\n",
    "acme-1.0.dist-info/entry_points.txt": (
        b"[console_scripts]\nacme = acme:main\nacme-tool = acme.deep.tool:Tool.run\n"
        b"[gui_scripts]\nacme-window = acme:main\n[other]\nx = y:z\n"
    ),
}


class Env:
    """A virtual environment that a real installer filled with what a simulated registry published."""

    def __init__(self, folder: Path, installer: str = "uv") -> None:
        self.world = World()
        self.machine = Machine(folder / "home", self.world)
        self.folder, self.installer = folder, installer
        self.root = folder / "env"
        self.wheels: list[Path] = []
        self.said: list[str] = []

    def publish(
        self, name: str = "acme", version: str = "1.0", files: dict[str, bytes] | None = None
    ) -> Published:
        data = archives.wheel(name, version, FILES if files is None else files)
        published = self.world.publish(name, version, data=data)
        self.wheels.append(self.folder / published.filename)
        self.wheels[-1].write_bytes(data)
        return published

    def install(self, *more: str) -> None:
        """What the two tools do when people call them, bytecode included."""
        if self.installer == "uv":
            run("uv", "venv", "--no-project", "--offline", "-p", sys.executable, self.root)
            words = [
                "uv",
                "pip",
                "install",
                "--offline",
                "--compile-bytecode",
                "--python",
                self.root / "bin" / "python",
            ]
        else:
            run(sys.executable, "-m", "venv", self.root)
            words = [self.root / "bin" / "python", "-m", "pip", "install", "--no-index"]
        run(*words, *more, *self.wheels)

    @property
    def info(self) -> Path:
        return self.site / "acme-1.0.dist-info"

    @property
    def site(self) -> Path:
        (found,) = self.root.glob("lib/python*/site-packages")
        return found

    def verify(
        self, mode: Mode = Mode.OBSERVE, path: Path | None = None, *, policies: Policies | None = None
    ) -> Report:
        policies = policies or Policies(local=ClientPolicy(mode=mode))
        proxy = Proxy(
            self.machine.registry, self.world, FileStore(self.folder / "store"),
            policies=policies, clock=lambda: self.world.now, say=self.said.append,
        )  # fmt: skip
        return verify_environment(read_place(path or self.root), proxy, now=self.world.now, policies=policies)

    def refused(self, code: int = 7) -> list[str]:
        """The refusals, in order; all of this exit code, and no distribution among what is verified."""
        report = self.verify()
        refused = [outcome for outcome in report.outcomes if isinstance(outcome, Refused)]
        assert refused and report.exit_code == code, report.to_json()
        assert {outcome.exit_code for outcome in refused} == {code}, report.to_json()
        assert not report.to_json()["verified"]
        return [str(outcome.error) for outcome in refused]


def run(*words: object) -> None:
    """Any program, bounded in time; its own messages when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(word) for word in words],
        env=clean | {"PATH": path, "PIP_NO_INPUT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Env:
    """One installed by uv, with a copy of all its files beside it: its scripts name their place."""
    made = Env(tmp_path_factory.mktemp("built"))
    made.publish()
    made.install()
    shutil.copytree(made.root, made.folder / "as-installed", symlinks=True)
    return made


@pytest.fixture
def env(built: Env, tmp_path: Path) -> Env:
    """The same for one test to spoil: files as they were installed, a registry and a machine of its own."""
    shutil.rmtree(built.root)
    shutil.copytree(built.folder / "as-installed", built.root, symlinks=True)
    fresh = copy.copy(built)
    fresh.world = built.world.copy()
    fresh.folder, fresh.said = tmp_path, []
    fresh.machine = Machine(tmp_path / "home", fresh.world)
    return fresh


# --- nothing was touched ----------------------------------------------------------------------------------


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_an_untouched_environment_is_clean(tmp_path: Path, installer: str) -> None:
    """Scripts, starters, data, headers, bytecode of two levels, a second package: every file is accounted for."""
    env = Env(tmp_path, installer)
    env.publish()
    env.publish("other-name", "2.0.1", {"other_name.py": b"X = 1\n", "other_name.pth": b"# a comment\n"})
    env.install()
    py_compile.compile(str(env.site / "acme/__init__.py"), optimize=2)
    report = env.verify(Mode.ENFORCE)
    assert report.exit_code == 0, report.to_json()
    verified = {o.artifact.project: o for o in report.outcomes if isinstance(o, Verified)}
    assert verified.keys() == {"acme", "other-name"}
    # 9 members but RECORD, 3 starters, METADATA and WHEEL: what was compared is said.
    assert f"{len(FILES) + 2 + 3} files here are those of the wheel" in verified["acme"].to_json()["remarks"]
    others = [o for o in report.outcomes if not isinstance(o, Verified)]
    if installer == "pip":  # the pip that Python put there, held against Python's own copy
        assert {type(o) for o in others} == {LetPass}
        assert {"pip"} <= {o.artifact.project for o in others} <= {"pip", "setuptools"}
        assert "that Python carries" in others[0].to_json()["because"]
    else:
        assert others == [] and report.to_json()["verified"]


def test_what_is_as_it_should_be_is_told_without_a_warning(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """That files are those of the wheel is no remark to mind, so it is not yellow, as those are."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    report = replace(env.verify(), remarks=("a trial registry",))
    commands_install._talk(report, report.outcomes)
    lines = terminal.getvalue().splitlines()
    assert "countermark: \x1b[33ma trial registry\x1b[0m" in lines
    (told,) = [line for line in lines if "files here are those of the wheel" in line]
    assert told.isprintable()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (ClientPolicy(mode=Mode.OBSERVE, demands=read_demands({"cool-down": "3d"})), "cool-down"),
        (
            ClientPolicy(mode=Mode.OBSERVE, rules=(Rule("acme", Mode.OBSERVE, frozenset({"00" * 32})),)),
            "other-signer",
        ),
    ],
)
def test_what_a_policy_refuses_is_refused_installed_too(env: Env, asked: ClientPolicy, reason: str) -> None:
    """By the mode of the file that asks, whatever the registry's is."""
    lenient = World(mode="warn")
    lenient.publish("acme", data=env.wheels[0].read_bytes())
    env.world, env.machine = lenient, Machine(env.folder / "lenient", lenient)
    assert env.verify().exit_code == 0
    report = env.verify(policies=Policies(project=asked))
    (refused,) = [outcome for outcome in report.outcomes if isinstance(outcome, Refused)]
    assert (report.exit_code, refused.error.reason) == (5, reason)


def test_bytecode_of_the_standard_library_is_its_sources() -> None:
    """No false alarm on some hundred modules that another process compiled."""
    folder = Path(os.__file__).parent
    compared = 0
    for source in sorted(folder.glob("*.py"))[::2]:
        pyc = Path(importlib.util.cache_from_source(str(source)))
        if pyc.exists() and bytecode.is_live(
            pyc.read_bytes(), mtime=int(source.stat().st_mtime), size=source.stat().st_size
        ):
            assert bytecode.comes_from(pyc.read_bytes(), source.read_bytes()) is True, pyc
            compared += 1
    assert compared > 20


def test_a_folder_that_pip_filled_is_an_environment_too(tmp_path: Path) -> None:
    """`pip install --target` and a site-packages folder inside an environment."""
    env = Env(tmp_path, "uv")
    env.publish("other-name", "2.0", {"other_name.py": b"X = 1\n"})
    target = tmp_path / "target"
    run(sys.executable, "-m", "pip", "install", "--no-index", "--target", target, *env.wheels)
    assert env.verify(path=target).exit_code == 0
    env.install()
    assert env.verify(path=env.site).exit_code == 0
    with pytest.raises(UsageError, match="is no environment"):
        env.verify(path=tmp_path / "home")


# --- what somebody changed --------------------------------------------------------------------------------


def test_a_file_edited_together_with_its_record_line_is_found(env: Env) -> None:
    """RECORD is written by whoever changes a file; the wheel is not."""
    path = env.site / "acme/__init__.py"
    path.write_bytes(SOURCE + b"import acme_pure\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    record = env.site / "acme-1.0.dist-info/RECORD"
    lines = [
        f"acme/__init__.py,sha256={digest},{path.stat().st_size}"
        if line.startswith("acme/__init__.py,")
        else line
        for line in record.read_text().splitlines()
    ]
    record.write_text("\n".join(lines) + "\n")
    (told,) = env.refused()
    assert "modified: lib/python3" in told and "acme/__init__.py: sha256:" in told
    assert (
        hashlib.sha256(SOURCE).hexdigest() in told and hashlib.sha256(path.read_bytes()).hexdigest() in told
    )


Change = Callable[[Env], object]
# What is done, and what is told: kind, path (`SITE/` for site-packages) and reason, each as far as it is fixed.
CHANGES: dict[str, tuple[Change, str]] = {
    "pth": (
        lambda e: (e.site / "zzz.pth").write_text("import os\n"),
        "extra: SITE/zzz.pth: no wheel brought it",
    ),
    "sitecustomize": (
        lambda e: (e.site / "sitecustomize.py").write_text("X\n"),
        "extra: SITE/sitecustomize.py",
    ),
    "module": (lambda e: (e.site / "acme/evil.py").write_text("X\n"), "extra: SITE/acme/evil.py"),
    "linked folder": (lambda e: (e.site / "linked").symlink_to(e.folder), "extra: SITE/linked"),
    "missing": (lambda e: (e.site / "acme/data.bin").unlink(), "missing: SITE/acme/data.bin"),
    "folder": (lambda e: swap_for_folder(e.site / "acme/data.bin"), "modified: SITE/acme/data.bin"),
    "purelib": (lambda e: (e.site / "acme_pure.py").write_text("PURE = 0\n"), "modified: SITE/acme_pure.py"),
    "data": (lambda e: (e.root / "etc/acme.conf").write_text("colour = red\n"), "modified: etc/acme.conf"),
    "METADATA": (lambda e: grow(e.info / "METADATA"), "modified: SITE/acme-1.0.dist-info/METADATA"),
    "note": (lambda e: (e.info / "x.py").write_text("X\n"), "extra: SITE/acme-1.0.dist-info/x.py"),
    "script": (lambda e: grow(e.root / "bin/acme-script"), "modified: bin/acme-script: sha256:"),
    "shell": (lambda e: grow(e.root / "bin/acme-shell"), "modified: bin/acme-shell: sha256:"),
    "starter": (lambda e: grow(e.root / "bin/acme-tool"), "bin/acme-tool: it does not just start acme.deep"),
    "no starter": (lambda e: (e.root / "bin/acme").unlink(), "missing: bin/acme: it starts acme:main"),
    "python": (
        lambda e: begin(e.root / "bin/acme", "#!/tmp/bin/python"),
        "bin/acme: it is run by /tmp/bin/python",
    ),
    "program": (
        lambda e: begin(e.root / "bin/acme-script", "#!/bin/sh"),
        "bin/acme-script: it is run by /bin/sh",
    ),
    "sourceless": (lambda e: (e.site / "acme/gone.pyc").write_bytes(b"x"), "extra: SITE/acme/gone.pyc"),
    "orphan": (lambda e: orphan(e.site), "extra: SITE/acme/__pycache__/gone.cpython-"),
}


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def begin(path: Path, line: str) -> None:
    path.write_bytes(line.encode() + b"\n" + path.read_bytes().split(b"\n", 1)[1])


def swap_for_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def orphan(site: Path) -> None:
    tag = sys.implementation.cache_tag
    (site / f"acme/__pycache__/gone.{tag}.pyc").write_bytes(b"x")


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_found_and_named(env: Env, name: str) -> None:
    change, told = CHANGES[name]
    change(env)
    (found,) = env.refused()
    assert told.replace("SITE", env.site.relative_to(env.root).as_posix()) in found


def test_a_script_without_a_first_line_is_told_for_that_and_for_the_rest(env: Env) -> None:
    begin(env.root / "bin/acme", "import os")
    assert [told.partition("bin/acme: ")[2] for told in env.refused()] == [
        "its first line names no Python",
        "it does not just start acme:main",
    ]


def test_what_runs_at_every_start_is_told_first(env: Env) -> None:
    (env.site / "acme/aaa.py").write_text("X\n")
    (env.site / "acme/__init__.py").write_text("X\n")
    (env.site / "zzz.pth").write_text("import acme.aaa\n")
    for name in ("usercustomize", "sitecustomize"):
        (env.site / f"{name}.py").write_text("X\n")
    found = [told.split(": ")[1].rpartition("/")[2] for told in env.refused()]
    assert found == ["sitecustomize.py", "usercustomize.py", "zzz.pth", "__init__.py", "aaa.py"]


# --- bytecode ---------------------------------------------------------------------------------------------


def planted(source: Path, code: bytes, *, flags: int = 0) -> Path:
    """Bytecode of other code, under a header with which Python runs it in place of the untouched source."""
    about = source.stat()
    second = struct.pack("<II", int(about.st_mtime), about.st_size)
    if flags:
        second = importlib.util.source_hash(b"whatever")
    pyc = Path(importlib.util.cache_from_source(str(source)))
    raw = marshal.dumps(compile(code, str(source), "exec"))
    pyc.write_bytes(importlib.util.MAGIC_NUMBER + struct.pack("<I", flags) + second + raw)
    return pyc


@pytest.mark.parametrize("flags", [0, 1])
def test_bytecode_that_is_not_its_sources_is_found(env: Env, flags: int) -> None:
    """Every source is untouched, and Python runs something else: by time and size, or by an unchecked hash."""
    source = env.site / "acme/deep/tool.py"
    planted(source, source.read_bytes().replace(b"10**30", b"10**31"), flags=flags)
    done = subprocess.run(
        [env.root / "bin/python", "-c", "import acme.deep.tool as t; print(t.Tool().run()()[1])"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"{10**31}\n"  # it does run
    (told,) = env.refused()
    assert "acme/deep/__pycache__/tool" in told and "runs in its place" in told


def test_bytecode_that_python_would_not_run_is_no_finding(env: Env) -> None:
    """A stale one is written anew by Python. One of another Python is counted as not provable."""
    source = env.site / "acme/__init__.py"
    pyc = planted(source, b"X = 1\n")
    raw = pyc.read_bytes()
    pyc.write_bytes(raw[:8] + bytes(4) + raw[12:])
    assert env.verify(Mode.ENFORCE).exit_code == 0
    pyc.write_bytes(b"\x00\x01\r\n" + raw[4:])
    report = env.verify(Mode.ENFORCE)
    assert report.exit_code == 5
    assert "1 files of bytecode were not made by the Python that checks" in str(report.outcomes[-1].error)


def test_no_byte_of_bytecode_may_change(env: Env) -> None:
    """Each byte but those of `co_filename`: changed, it is found, or the meaning is the same."""
    source = env.site / "acme/__init__.py"
    raw = Path(importlib.util.cache_from_source(str(source))).read_bytes()
    code = marshal.loads(raw[16:])
    missed = []
    for at in range(16, len(raw)):
        other = bytearray(raw)
        other[at] ^= 0x55
        if bytecode.comes_from(bytes(other), source.read_bytes()) is False:
            continue
        try:
            same = marshal.loads(bytes(other[16:])).replace(co_filename="") == code.replace(co_filename="")
        except (ValueError, EOFError, TypeError):
            same = False
        if not same:
            missed.append(at)
    assert missed == []


def test_bytecode_that_means_to_exhaust_us_is_refused_quickly() -> None:
    """Parts that refer to their own parts, a hundred levels: 2**100 when written out. And nonsense of each kind."""
    laughs = b"\xa9\x02NN"  # ( None None ), marked: reference 0
    for level in range(100):
        laughs = b"\xa9\x02" + laughs + b"r" + struct.pack("<I", level)
    head = importlib.util.MAGIC_NUMBER + bytes(12)
    deep = b"\x29\x01" * 5000 + b"N"
    for body in (
        laughs,
        deep,
        b"",
        b"r\x00\x00\x00\x00",
        b"(\xff\xff\xff\xff",
        b"?",
        b"s\xff\xff\xff\x7f",
        b"N" * 2,
    ):
        assert bytecode.comes_from(head + body, b"X = 1\n") is False
    assert bytecode.comes_from(head + b"N", b"not python\n") is False


# --- what no wheel answers for ----------------------------------------------------------------------------


def test_what_came_from_elsewhere_is_not_provable(env: Env) -> None:
    """Its own RECORD explains its files, so they are not extra; the policy decides, and a start-up file is named."""
    other = archives.wheel(
        "stranger", "3.0", {"stranger.py": b"X = 1\n", "stranger.pth": b"import stranger\n"}
    )
    (env.folder / "stranger-3.0-py3-none-any.whl").write_bytes(other)
    run(
        "uv", "pip", "install", "--offline", "--python", env.root / "bin/python",
        env.folder / "stranger-3.0-py3-none-any.whl",
    )  # fmt: skip
    report = env.verify(Mode.ENFORCE)
    assert report.exit_code == 5
    told = [str(o.error) for o in report.outcomes if isinstance(o, Refused)]
    assert len(told) == 2 and "stranger.pth: it runs at every start" in told[0]
    assert "installed from a place of its own, unknown to the registry; its" in told[1]


def test_a_claim_by_a_stranger_excuses_no_file_of_a_wheel(env: Env) -> None:
    """A distribution that nobody knows claims a module of one that is known: it is compared all the same."""
    folder = env.site / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "RECORD").write_text("acme/__init__.py,,\nacme/evil.py,,\n")
    (env.site / "acme/__init__.py").write_text("X\n")
    told = [str(o.error) for o in env.verify().outcomes if isinstance(o, Refused)]
    assert len(told) == 2 and "modified" in told[0] and "acme/__init__.py" in told[0]


def test_a_file_taken_down_since_is_told_as_withdrawn(env: Env) -> None:
    (published,) = [Published("acme", "1.0", path.name, path.read_bytes(), 0) for path in env.wheels]
    env.world.decide("takedown", published, "malware")
    env.world.release()
    report = env.verify()
    assert report.exit_code == 6, report.to_json()
    (told,) = [str(o.error) for o in report.outcomes if isinstance(o, Refused)]
    assert "acme-1.0-py3-none-any.whl" in told and "is removed (malware)" in told


def test_the_pip_of_a_new_environment_is_held_against_pythons_own(tmp_path: Path) -> None:
    env = Env(tmp_path, "pip")
    env.publish("other-name", "2.0", {"other_name.py": b"X = 1\n"})
    env.install()
    grow(env.site / "pip/__init__.py")
    (told,) = env.refused()
    assert "modified" in told and "pip/__init__.py" in told


def test_a_project_that_cannot_be_asked_for_is_not_taken_for_an_unknown_one(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who withholds a page would else hide a changed file behind "not provable", which a policy may let pass."""
    get = env.world.get

    def withheld(url: str, **how: Any) -> bytes | None:
        if url.endswith("/simple/acme/"):
            raise NetworkError(f"{url}: no answer")
        return get(url, **how)

    monkeypatch.setattr(env.world, "get", withheld)
    grow(env.site / "acme/__init__.py")
    report = env.verify()
    assert report.exit_code == 3, report.to_json()


def test_a_registry_that_serves_other_bytes_proves_nothing(env: Env) -> None:
    """What is compared with is the logged wheel or nothing."""
    env.world.packages[f"acme/{env.wheels[0].name}"] = archives.wheel(
        "acme", "1.0", {"acme/__init__.py": b"X\n"}
    )
    (env.site / "acme/__init__.py").write_bytes(b"X\n")
    report = env.verify()
    assert report.exit_code == 7
    assert "the log says" in str(report.outcomes[0].error) or "entry #" in str(report.outcomes[0].error)
