"""The package by which a fleet gets its first root: from wherever the registry keeps it, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from countermark.errors import UsageError
from countermark_server.cli import commands
from countermark_server.operate import trustpackage
from countermark_server.operate.trustpackage import trust_package, write_package
from countermark_server.stores import places
from countermark_server.stores.public import Public
from tests.log_world import LogWorld

ORIGIN, URL = "registry.test/main", "http://registry.test"


@pytest.fixture
def public(either_backend: str, tmp_path: Path) -> Public:
    """A public tree with two roots, in a folder or in a bucket."""
    world = LogWorld(tmp_path / "data")
    made = places.public(world.settings)
    for version in (1, 2):
        made.put(f"tuf/{version}.root.json", ROOT.replace(b"VERSION", b"%d" % version))
    return made


ROOT = (
    b'{"signatures":[],"signed":{"_type":"root","consistent_snapshot":true,"expires":"2036-01-01T00:00:00Z",'
    b'"keys":{},"roles":{"root":{"keyids":[],"threshold":1},"snapshot":{"keyids":[],"threshold":1},'
    b'"targets":{"keyids":[],"threshold":1},"timestamp":{"keyids":[],"threshold":1}},'
    b'"spec_version":"1.0.31","version":VERSION}}'
)


def test_the_newest_root_is_packed_and_the_same_bytes_each_time(public: Public) -> None:
    """Two operators who make it can compare: root, origin and URL decide every byte."""
    first, second = (trust_package(public, ORIGIN, URL) for _ in range(2))
    assert first == second and first.files["root.json"] == public.read("tuf/2.root.json")
    assert first.wheel.startswith("countermark_trust_registry_test_main-2-")
    assert trust_package(public, ORIGIN, URL + "/other") != first


def test_the_command_reads_the_store_that_the_settings_name(public: Public, tmp_path: Path) -> None:
    """Also where the public tree lies in a bucket."""
    (tmp_path / "data/settings.toml").write_text(f'[registry]\norigin = "{ORIGIN}"\n', encoding="utf-8")
    command = [
        "trust-package",
        "--data",
        str(tmp_path / "data"),
        "--url",
        URL,
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out/root.json").read_bytes() == public.read("tuf/2.root.json")


def test_without_a_root_or_a_url_nothing_is_packed(public: Public, tmp_path: Path) -> None:
    """Each is said, with the next step."""
    with pytest.raises(UsageError, match="clients pin a URL"):
        trust_package(public, ORIGIN, "")
    with pytest.raises(UsageError, match="has no root yet"):
        trust_package(Public(tmp_path / "empty"), ORIGIN, URL)


def test_a_death_while_it_is_written_leaves_nothing_under_its_name(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the files and before the name: an `.incomplete` folder says so, and is not written over."""
    package = trust_package(public, ORIGIN, URL)

    def dies(*_: object) -> None:
        raise OSError("the machine died here")

    for number, (where, name) in enumerate([(trustpackage, "write_files"), (Path, "rename")]):
        out = tmp_path / f"out-{number}"
        with monkeypatch.context() as patched:
            patched.setattr(where, name, dies)
            with pytest.raises(OSError, match="died here"):
                write_package(out, package)
        beside = out.with_name(f"{out.name}.incomplete")
        left = {path.name: path.read_bytes() for path in beside.iterdir()}
        assert not out.exists() and left in ({}, dict(package.files))
        with pytest.raises(UsageError, match="whole or incomplete"):
            write_package(out, package)
        assert {path.name: path.read_bytes() for path in beside.iterdir()} == left
    whole = tmp_path / "whole"
    write_package(whole, package)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == dict(package.files)
