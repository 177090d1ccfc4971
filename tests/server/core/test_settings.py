"""Settings: the file, then the environment, and never a guess."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from countermark_server.settings import SECTIONS, Settings, SettingsError, load


def write(folder: Path, text: str) -> Path:
    (folder / "settings.toml").write_text(text, encoding="utf-8")
    return folder


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    """The database lies in the data directory."""
    assert load(tmp_path, {}) == Settings(tmp_path)
    assert load(tmp_path, {}).database_url == f"sqlite:///{tmp_path / 'registry.sqlite'}"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """COUNTERMARK_<SECTION>_<NAME>."""
    write(tmp_path, '[registry]\norigin = "x.test/a"\n[tuf]\nmin_interval = 5\n')
    settings = load(tmp_path, {"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"})
    assert (settings.registry.origin, settings.tuf.min_interval) == ("x.test/a", 0.2)
    assert load(tmp_path, {}).tuf.min_interval == 5.0


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[nothing]\n", "nothing"),
        ("[log]\nbatches = 1\n", "log.batches"),
        ("[log]\nbatch = '1'\n", "log.batch"),
        ("[log]\nbatch = 1.5\n", "log.batch"),
        ("[log]\nbatch = true\n", "log.batch"),
        ("[log]\nbatch = 0\n", "log.batch"),
        ("[log]\nbatch = 99999\n", "log.batch"),
        ("[tuf]\nmin_interval = 'fast'\n", "tuf.min_interval"),
        ("[tuf]\nmin_interval = nan\n", "tuf.min_interval"),
        ("[tuf]\nmin_interval = inf\n", "tuf.min_interval"),
        ("[registry]\norigin = 1\n", "registry.origin"),
        ("log = 1\n", "log"),
        ("[log", "settings.toml"),
        ("[log]\nbatch = 1\nbatch = 2\n", "settings.toml"),
    ],
)
def test_what_is_not_a_setting_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    """Unknown, wrong type, out of range, not TOML."""
    with pytest.raises(SettingsError, match=names):
        load(write(tmp_path, text), {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """No traceback for bytes."""
    (tmp_path / "settings.toml").write_bytes(b"\xff\xfe[log]")
    with pytest.raises(SettingsError, match=r"settings\.toml"):
        load(tmp_path, {})


@pytest.mark.parametrize("value", ["", "x", "1e", "0", "4097"])
def test_a_bad_variable_is_refused_by_name(tmp_path: Path, value: str) -> None:
    """The message names the variable, which is what the operator has to change."""
    with pytest.raises(SettingsError, match="COUNTERMARK_LOG_BATCH"):
        load(tmp_path, {"COUNTERMARK_LOG_BATCH": value})


def test_every_setting_is_described_and_within_its_own_bounds() -> None:
    """The documentation is generated from these descriptions."""
    for section, cls in SECTIONS.items():
        for spec in fields(cls):
            assert spec.metadata["doc"], f"{section}.{spec.name}"
            least, most = spec.metadata["least"], spec.metadata["most"]
            assert least is None or spec.default >= least, f"{section}.{spec.name}"
            assert most is None or spec.default <= most, f"{section}.{spec.name}"
