"""A registry that was initialised, and its ceremony's output: for each test a copy of the module's `pristine`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from countermark_server.settings import Settings, load


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    for name in ("data", "out"):
        shutil.copytree(pristine / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def settings(folder: Path) -> Settings:
    return load(folder / "data", {})
