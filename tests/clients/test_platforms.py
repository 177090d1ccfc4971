"""The client's requirements on Linux, macOS and Windows, as uv resolves them for each from the package's metadata.

Without network from what is installed here: each requirement's own metadata, in an empty wheel. With
`make test-matrix` from PyPI, with every extra, and wheels alone: nobody needs a compiler.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("linux", "macos", "windows", "aarch64-apple-darwin", "aarch64-unknown-linux-gnu")
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
OLDEST = "3.11"  # requires-python


def locked() -> dict[str, str]:
    """What `make setup` and the documentation install."""
    return dict(PINNED.findall((ROOT / "requirements" / "client.txt").read_text("utf-8")))


def resolved(project: Path, platform: str, *options: str) -> dict[str, str]:
    """Names and versions that uv takes for this platform; its own words where it finds none."""
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "compile", project, "--python-platform", platform, "--python-version", OLDEST]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    done = subprocess.run(
        [*command, "--python", sys.executable, "--no-header", "--no-annotate", *options],
        capture_output=True, text=True, check=False, timeout=120, env=kept,
    )  # fmt: skip
    assert done.returncode == 0, f"{platform}: {done.stderr}"
    return dict(PINNED.findall(done.stdout))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of each locked requirement that says what the real one does, and holds nothing."""
    folder = tmp_path_factory.mktemp("shelf")
    for name, version in locked().items():
        found = distribution(name)
        assert found.version == version, f"{name} {found.version} is installed, {version} is locked"
        stem = f"{name.replace('-', '_')}-{version}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", found.read_text("METADATA") or "")
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return folder


def offline(project: Path, platform: str, shelf: Path) -> dict[str, str]:
    return resolved(project, platform, "--offline", "--no-index", "--find-links", str(shelf), "--no-cache")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_gets_what_is_locked(shelf: Path, platform: str) -> None:
    """Nothing more, nothing less, and nothing of another version: no requirement is for one platform alone."""
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    assert not [line for line in project["dependencies"] if ";" in line]
    assert offline(ROOT / "client" / "pyproject.toml", platform, shelf) == locked()


def test_a_requirement_of_one_platform_is_seen_there(shelf: Path, tmp_path: Path) -> None:
    """The test of the test: what only Windows would need fails for Windows, and for nobody else."""
    planted = tmp_path / "pyproject.toml"
    text = (ROOT / "client" / "pyproject.toml").read_text("utf-8")
    more = "    \"pywin32>=300; sys_platform == 'win32'\",\n"
    planted.write_text(text.replace("dependencies = [\n", "dependencies = [\n" + more, 1), "utf-8")
    assert offline(planted, "macos", shelf) == locked()
    with pytest.raises(AssertionError, match=r"(?s)^windows: .*pywin32"):
        offline(planted, "windows", shelf)


def test_what_the_readme_claims_is_done_and_no_more() -> None:
    """Types are checked for all three by what every change must pass; and that nobody has run it there is said."""
    told = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert "its types are checked for all three" in told and "not yet been run on Windows or macOS" in told
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("lint", "style"):
        (recipe,) = re.findall(rf"^{target}: .*\n\t(.*)$", makefile, re.MULTILINE)
        assert {"types", "types-win32", "types-darwin"} <= set(recipe.split())
    assert "--platform $* client/countermark" in makefile
    assert "make style" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.matrix
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_has_wheels_on_pypi(platform: str) -> None:
    """Of the newest versions, and of every extra."""
    found = resolved(ROOT / "client" / "pyproject.toml", platform, "--only-binary", ":all:", "--all-extras")
    assert locked().keys() <= found.keys()
    assert ("pywin32-ctypes" in found) is (platform == "windows")  # of keyring: the platform was heeded
