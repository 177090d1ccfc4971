"""What the pages show of the demo is one recorded run, of the acts that are played today."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.world import acts
from tests.world.stage import Stage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
try:
    import demo_record
finally:
    sys.path.pop(0)

README, WHOLE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/demo.md"))


def test_the_readme_shows_a_part_of_the_whole_recording() -> None:
    """Nobody touched up either page: what README shows is word for word in docs/demo.md."""
    assert demo_record.recorded(README).strip("\n") == demo_record.in_short(demo_record.recorded(WHOLE))
    assert demo_record.rendered(README, demo_record.recorded(WHOLE)) == README


def test_the_recording_is_of_the_acts_that_are_played() -> None:
    """Every act has its title and its row in the table; the last lines are what the curtain says today."""
    said = demo_record.recorded(WHOLE)
    for number, act in enumerate(acts.ACTS, 1):
        assert f"\n{number}  {act.title}\n" in said
        assert f"\n{number}  {act.proved:<58}{act.by}" in said
    assert f"All {len(acts.ACTS)} acts went as told in " in said


def test_the_last_words_are_todays(tmp_path: Path) -> None:
    """A changed curtain makes the recording stale."""
    out = io.StringIO()
    stage = Stage(tmp_path / "stage", out=out)
    stage.curtain()
    assert demo_record.recorded(WHOLE).rstrip().endswith(out.getvalue().rpartition("\n\n")[2].rstrip())


def test_a_page_without_a_recording_is_refused() -> None:
    """The test of the test: no recording, or two, is no page that shows the demo."""
    with pytest.raises(ValueError, match="0 recorded runs"):
        demo_record.recorded("# A page\n")
    with pytest.raises(ValueError, match="2 recorded runs"):
        demo_record.recorded(README * 2)
