"""The three distributions as a user gets them: file lists, pins and run-time dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "client": "countermark",
    "server": "countermark_server",
    "keys-ceremony": "countermark_ceremony",
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, zipfile.ZipFile]:
    """Each distribution built once, without network."""
    out = tmp_path_factory.mktemp("wheels")
    built = {}
    for folder, package in PACKAGES.items():
        command = [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(out),
            str(ROOT / folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        (wheel,) = out.glob(f"{package}-*.whl")
        built[folder] = zipfile.ZipFile(wheel)
    return built


def requires(wheel: zipfile.ZipFile) -> list[str]:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return HeaderParser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist") or []


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_wheel_holds_exactly_its_package(wheels: dict[str, zipfile.ZipFile], folder: str) -> None:
    """Every tracked file of the package is in the wheel, and nothing else but the wheel's own metadata."""
    package = PACKAGES[folder]
    listed = subprocess.run(
        ["git", "ls-files", f"{folder}/{package}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = {name.removeprefix(f"{folder}/") for name in listed}
    found = {name for name in wheels[folder].namelist() if ".dist-info/" not in name}
    assert found == expected
    assert Path(wheels[folder].filename or "").name.endswith("-py3-none-any.whl")


def test_the_client_needs_only_four_distributions(wheels: dict[str, zipfile.ZipFile]) -> None:
    """The client's run-time dependencies are tuf, securesystemslib, cryptography and urllib3."""
    needed = [line for line in requires(wheels["client"]) if "extra ==" not in line]
    names = {re.split(r"[<>=!~ ;\[]", line)[0] for line in needed}
    assert names == {"tuf", "securesystemslib", "cryptography", "urllib3"}
    locked = (ROOT / "requirements/client.txt").read_text("utf-8")
    assert set(re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE)) == names | {"cffi", "pycparser"}


@pytest.mark.parametrize("folder", ["server", "keys-ceremony"])
def test_server_and_ceremony_pin_the_client(wheels: dict[str, zipfile.ZipFile], folder: str) -> None:
    """A server never runs with another client's rules: `countermark==X`."""
    version = HeaderParser().parsestr(
        next(wheels["client"].read(n).decode() for n in wheels["client"].namelist() if n.endswith("METADATA"))
    )["Version"]
    assert f"countermark=={version}" in requires(wheels[folder])


def test_locked_requirements_carry_hashes_and_no_index_address() -> None:
    """requirements/*.txt pin every distribution by hash and name no index."""
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text("utf-8")
        assert "://" not in text and "--index" not in text, path.name
        blocks = re.split(r"\n(?=[a-z0-9])", text.strip())
        assert all("--hash=sha256:" in block for block in blocks), path.name


# Imports every module; but for what runs when it is imported, and asks for a data directory.
PROBE = """
import importlib, pathlib, pkgutil, sys
for name in ("countermark", "countermark_server", "countermark_ceremony"):
    package = importlib.import_module(name)
    assert pathlib.Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(("__main__", "gunicorn_conf", "wsgi")) and ".migrations." not in module.name:
            importlib.import_module(module.name)
"""


def test_what_the_wheels_hold_starts(wheels: dict[str, zipfile.ZipFile], tmp_path: Path) -> None:
    """Unpacked on their own, outside of the source tree: every module is imported, every command answers."""
    for wheel in wheels.values():
        wheel.extractall(tmp_path / "site")
    environment = {"PATH": "", "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    commands = [
        ["-c", PROBE, str(tmp_path / "site")],
        ["-c", "from countermark.__main__ import run; run()", "--version"],
        ["-c", "from countermark_server.cli import main; raise SystemExit(main())", "--help"],
        ["-c", "from countermark_ceremony.cli import main; raise SystemExit(main())", "--help"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
