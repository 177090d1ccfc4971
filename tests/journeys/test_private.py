"""A registry that is read with a token, from `up` to an install: its own processes, its people, its installers."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from tests import s3
from tests.world.backends import settings_of
from tests.world.world import World, as_json, fresh


@pytest.fixture(
    scope="module", params=["sqlite files", pytest.param("postgresql s3", marks=pytest.mark.exhaustive)]
)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {**settings_of(request.param), "COUNTERMARK_ACCESS_MODE": "token"}
    with fresh(tmp_path_factory.mktemp("private"), settings=settings, ready="/healthz") as made:
        made.up("--trial")
        yield made


def test_publish_verify_and_install_where_not_everybody_may_read(world: World) -> None:
    """Who signs in reads from then on; who has no token reads nothing; installers show theirs and get files."""
    root, words = world.data / "ceremony/1.root.json", world.words(world.data / "ceremony")
    stranger = world.run(
        "countermark", "trust", "add", world.url, "--root-words", words, home="eve", expect=None
    )
    assert stranger.code != 0 and "401" in stranger.err
    world.login("alice", words)
    dist = world.project("secret-plans")
    world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    wheel = next(dist.glob("*.whl"))
    world.run("countermark", "status", "--wait", wheel)
    assert as_json(world.run("countermark", "verify", "--json", wheel))["verified"] is True

    reader = world.run("countermark", "tokens", "make", "ci", "--action", "read").out.strip()
    world.run("countermark", "trust", "add", world.url, "--root", root, "--root-words", words, home="ci")
    assert world.run("countermark", "verify", wheel, home="ci", expect=3).code == 3
    shown = {"COUNTERMARK_READ_TOKENS": f"{world.url}={reader}"}
    assert world.run("countermark", "verify", wheel, home="ci", **shown).code == 0

    where = f"http://__token__:{reader}@127.0.0.1:{world.port}/simple/"
    python = world.machine("pip-nina")
    world.run(python, "-m", "pip", "install", "--no-input", "-i", where, "secret-plans")
    refused = world.run(
        python, "-m", "pip", "download", "--no-input", "--no-deps", "-d", world.root / "d", "-i",
        f"{world.url}/simple/", "secret-plans", expect=None,
    )  # fmt: skip
    assert refused.code != 0 and not list(Path(world.root / "d").glob("*.whl"))
    ran = world.run(
        "countermark", "run", "--", "uv", "pip", "install", "--target", world.root / "t", "secret-plans",
        home="ci", **shown,
    )  # fmt: skip
    assert ran.code == 0 and reader not in ran.said
    if (bucket := world.settings.get("COUNTERMARK_STORAGE_BUCKET")) is not None:
        no_reader_gets_past_the_registry(world, bucket)


def no_reader_gets_past_the_registry(world: World, bucket: str) -> None:
    """The bucket hands nothing to a stranger, and no door leads there; what lies in it is for no shared cache."""
    prefix = world.settings["COUNTERMARK_STORAGE_PREFIX"]
    where = f"{world.settings['COUNTERMARK_STORAGE_ENDPOINT']}/{bucket}/{prefix}"
    for name in ("public/tuf/1.root.json", "public/log/checkpoint", "blobs/"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{where}/{name}", timeout=20)
    for path in ("/tuf/1.root.json", "/simple/secret-plans/", "/log/checkpoint"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            world.get(path)
    store = s3.server().bucket(world.settings["COUNTERMARK_STORAGE_PREFIX"])._store
    kept = obstore.get(
        store, f"{world.settings['COUNTERMARK_STORAGE_PREFIX']}/public/tuf/1.root.json"
    ).attributes
    assert kept["Cache-Control"].startswith("private")
