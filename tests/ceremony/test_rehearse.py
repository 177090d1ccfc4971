"""Rehearsals: whole ceremonies with stand-in keys, no socket, nothing kept; refused clearly without SoftHSM."""

import os
import subprocess
import sys

import pytest

from countermark_ceremony import rotationtext
from countermark_ceremony.files import write_folder
from countermark_ceremony.tables import PlanKey, Token
from tests import ceremony_world as world
from tests.ceremony.test_commands import tree
from tests.ceremony.test_rotate import SOON, Room
from tests.softhsm import COMPONENTS

# As in test_commands, but softhsm2-util may be started: it makes the tokens.
GUARDED = """
import os, sys
def guard(event, arguments):
    if event.startswith("socket.") or event in ("os.system", "os.exec"):
        sys.stderr.write(f"GUARD: {event} {arguments}\\n")
        sys.stderr.flush()
        os._exit(99)
    if event == "subprocess.Popen" and not str(arguments[0]).endswith("softhsm2-util"):
        os._exit(98)
sys.addaudithook(guard)
from countermark_ceremony.cli import main
main()
"""


@pytest.fixture
def room(tmp_path):
    """A folder to stand in, and one for scratch that must be empty afterwards."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "room").mkdir()
    return tmp_path


def rehearse(room, *arguments, path=COMPONENTS / "bin", expect=0):
    before = tree(room / "room")
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, "rehearse", *arguments],
        cwd=room / "room",
        env=os.environ | {"TMPDIR": str(room / "scratch"), "PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == expect, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert list((room / "scratch").iterdir()) == [] and tree(room / "room") == before
    return done.stderr


def ask(room, plan=None, **event):
    """A real registry's folder, and the next plan that the planner makes of what happened."""
    real = Room()
    found = real.plan(**{name: keys(real) if callable(keys) else keys for name, keys in event.items()})
    raw = rotationtext.plan_text(
        real.chain[-1],
        found.steps[0],
        folder="root-1",
        title="the next one",
        operator="dora",
        date=SOON,
        changes=None if plan is None else ["trust-file"],
    )
    write_folder(room / "room/root-1", real.files)
    (room / "room/plan-2.toml").write_bytes(raw + (plan(real) if plan else b""))
    return real


def test_a_whole_ceremony_is_rehearsed_and_nothing_of_it_is_kept(room):
    """Tokens and files, three of five; too few are refused; a holder is lost; every screen in its order."""
    said = rehearse(room)
    steps = [line.split()[2] for line in said.splitlines() if line.startswith("$ countermark-ceremony ")]
    made = ["keys"] * 16
    held = ["assemble", "verify", "simulate-client", "status"]
    first = [*made, "prepare", *["sign"] * 4, "assemble", *held]
    assert steps == [*first, *["keys"] * 3, "rotate", "prepare", *["sign"] * 4, *held]
    assert "refused, as it must be: too few signatures: 1.root.json 2/3" in said
    assert "verified: root 2 of rehearsal.invalid (trial)" in said
    assert "THIS IS A TRIAL" in said and "on token 'cleo'" in said


def test_without_softhsm_it_says_what_to_install(room):
    """Nothing is made, nothing is typed."""
    said = rehearse(room, path="/nowhere", expect=2)
    assert "there is no softhsm2-util on the PATH" in said and "hint: install softhsm2" in said
    assert "$ countermark-ceremony" not in said


def test_a_token_that_cannot_be_made_ends_it_with_nothing_left(room):
    """The rehearsal breaks in its middle: the scratch folder is gone all the same."""
    broken = room / "bin"
    (broken / "lib/softhsm").mkdir(parents=True)
    (broken / "lib/softhsm/libsofthsm2.so").touch()
    (broken / "bin").mkdir()
    (broken / "bin/softhsm2-util").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (broken / "bin/softhsm2-util").chmod(0o755)
    said = rehearse(room, path=broken / "bin", expect=2)
    assert "softhsm2-util made no token 'ada': no room" in said


def test_the_next_plan_of_a_real_registry_is_rehearsed_from_public_data(room):
    """Keys in files need no SoftHSM; the real folder and plan stay as they were, no real key is at hand."""
    ask(room, removed=["cleo"], added=lambda real: real.come("eve"))
    said = rehearse(room, "--next", "plan-2.toml", path="/nowhere")
    assert "root 1 stands for root 1 of registry.example; now its next plan" in said
    assert "! root: 1 of 3 keys leave, 1 come" in said
    assert "a client that trusts root 1 reaches root 2" in said


def test_a_real_key_on_a_token_is_rehearsed_on_a_token(room):
    """Where the plan says token, the stand-in is on one, and signs where its uri says."""

    def come(real):
        public = real.key("ben-root-2").public_key
        return (PlanKey("ben-root-2", "ben", public, Token("Yubico", "158", "hsm:9?label=ben")),)

    ask(room, lost=["ben-root"], added=come)
    assert "--token 'hsm:4?label=ben'" in rehearse(room, "--next", "plan-2.toml")
    assert "there is no softhsm2-util" in rehearse(room, "--next", "plan-2.toml", path="/nowhere", expect=2)


def test_another_witness_policy_is_rehearsed_with_stand_in_log_keys(room):
    """All witnesses lost: the new policy stays as it is but for the log's own lines."""

    def policy(real):
        old = real.chain[-1].trust_file.witness_policy
        witness = world.Registry().witness.vkey.format()
        new = "".join(
            f"witness w2 {witness}\nquorum w2\n" if line.startswith("witness") else line
            for line in old.splitlines(keepends=True)
            if not line.startswith("quorum")
        )
        return f"\n[trust_file]\nwitness_policy = '''{new}'''\nwithdraw = true\n".encode()

    ask(room, plan=policy)
    said = rehearse(room, "--next", "plan-2.toml", path="/nowhere")
    assert "+ trust file version 2 for rehearsal.invalid" in said and "+ quorum w2" in said


def test_a_plan_that_prepare_would_refuse_is_refused_before_anything_is_made(room):
    """The real plan is held against the real folder first."""
    ask(room, removed=["cleo"], added=lambda real: real.come("eve"))
    plan = room / "room/plan-2.toml"
    plan.write_bytes(plan.read_bytes().replace(b'["holders"]', b"[]"))
    said = rehearse(room, "--next", "plan-2.toml", expect=2)
    assert "changes says []" in said and "$ countermark-ceremony" not in said
