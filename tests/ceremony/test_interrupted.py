"""Interrupted, out of order, at the wrong request: nothing half-written, and a sentence that says what to do."""

import os

import pytest

from countermark.errors import UsageError
from countermark_ceremony import files
from tests.ceremony.test_commands import run, sign, table, tree

__all__ = ["table"]  # the fixture


class DeadError(Exception):
    """The machine died here."""


@pytest.mark.parametrize("at", range(4))
def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch, at):
    """Dead before the n-th file or before the rename: no folder of that name, and the next try names the rest."""
    made = [0]
    real_open, real_rename = os.open, type(tmp_path).rename

    def counted(what):
        def call(*arguments, **named):
            if made[0] == at:
                raise DeadError
            made[0] += 1
            return what(*arguments, **named)

        return call

    content = {"plan.toml": b"1", "requests/ada.request.json": b"2", "requests/ben.request.json": b"3"}
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "open", counted(real_open))
        patched.setattr(type(tmp_path), "rename", counted(real_rename))
        with pytest.raises(DeadError):
            files.write_folder(tmp_path / "c", content)
    assert not (tmp_path / "c").exists()
    with pytest.raises(UsageError, match=r"c\.incomplete.* is what an interrupted command left"):
        files.write_folder(tmp_path / "c", content)
    files.write_folder(tmp_path / "d", content)
    assert files.read_folder(tmp_path / "d") == content


def test_what_an_interrupted_prepare_left_is_named_and_kept(table):
    """The next try names the unfinished folder and leaves it for people to look at."""
    (table / "c.incomplete").mkdir()
    before = tree(table)
    said = run("prepare", "plan.toml", "--out", "c", cwd=table, expect=2).stderr
    assert (
        'c.incomplete" is what an interrupted command left' in said and "hint: nothing of it counts" in said
    )
    assert tree(table) == before and not (table / "c").exists()


def test_steps_out_of_their_order_are_refused_and_write_nothing(table):
    """assemble before prepare and before anybody signed, verify before assemble, sign of what is no request."""
    before = tree(table)
    run("assemble", "c", "ada.response.json", "--out", "out", cwd=table, expect=2)
    run("sign", "c/requests/ada.request.json", "--out", "ada.response.json", "--yes", cwd=table, expect=2)
    assert tree(table) == before
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    before = tree(table)
    run("assemble", "c", "ada.response.json", "--out", "out", cwd=table, expect=2)
    run("verify", "c", cwd=table, expect=7)
    run("simulate-client", "c", cwd=table, expect=7)
    run("rotate", "c", "--out", "plan-2.toml", cwd=table, expect=7)
    run("assemble", "c", "c/requests/ada.request.json", "--out", "out", cwd=table, expect=7)
    assert tree(table) == before


def test_a_custodian_at_the_wrong_request_is_told_whose_keys_it_needs(table):
    """Ada's keys at ben's request: named, before any passphrase is asked for."""
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    before = tree(table)
    keys = [word for path in sorted(table.glob("ada-*.key.json")) for word in ("--key", path.name)]
    wrong = ["sign", "c/requests/ben.request.json", *keys, "--out", "ben.response.json", "--yes"]
    assert "needs the keys of ben-root" in run(*wrong, cwd=table, expect=2).stderr
    assert tree(table) == before
    sign(table, "ben")
