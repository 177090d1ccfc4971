"""History is rewritten, over real processes, by somebody who holds every online key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.world import history
from tests.world.world import World, fresh


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A trial registry; alice has published and verified one wheel."""
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.up("--trial", "--origin", world.origin)
        world.login("alice", world.words(world.data / "ceremony"))
        dist = world.project("hello-countermark")
        world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
        yield world


def test_another_history_is_refused_kept_and_explained_to_a_stranger(world: World) -> None:
    """The witness says 422; the client keeps both heads; they prove themselves offline; nothing changed."""
    (wheel,) = (world.root / "hello-countermark-1.0.0" / "dist").glob("*.whl")
    said, done, evidence = history.rewrite(world, wheel)
    assert "the checkpoint says" in said and "evidence (self-proving) is in" in done.err
    root = world.data / "ceremony" / "1.root.json"
    explained = history.explain(world, evidence, root)
    first, second, third = explained.out.splitlines()
    assert "signed two histories" in first
    assert "signed by all 2 keys of the log" in second
    assert "self-proving" in third

    # Who has never seen the first head has nothing to compare: no more is claimed than that its tiles do not fit.
    world.run("countermark", "trust", "add", world.url, "--root", root, home="newcomer")
    with history.shown(world):
        newcomer = world.run("countermark", "verify", wheel, home="newcomer", expect=7)
    assert "fork" not in newcomer.err and "self-proving" not in newcomer.err
    assert not list((world.root / "newcomer").rglob("self-proving-*.json"))
    world.run("countermark", "verify", wheel, home="newcomer")

    # Two copies of one head, under the names of two, prove nothing.
    document = json.loads(evidence.read_bytes())
    document["objects"]["checkpoint-offered"] = document["objects"]["checkpoint-seen"]
    false = world.root / "elsewhere" / "false.json"
    false.write_text(json.dumps(document), encoding="utf-8")
    shutil.copy(root, false.with_name("root.json"))
    refused = world.run("countermark", "evidence", "check", "--root", root, false, expect=7)
    assert "this is no fork" in refused.err
