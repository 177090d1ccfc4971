"""The commands as people type them, in a process that may not open a socket."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from countermark import keyfile
from countermark_ceremony import assemble, files, history, trial
from tests import ceremony_world as world

# Played in place of `python -m countermark_ceremony.cli`: any socket event ends the process with 99.
GUARDED = """
import os, sys
def guard(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
        sys.stderr.write(f"GUARD: {event} {arguments}\\n")
        sys.stderr.flush()
        os._exit(99)
sys.addaudithook(guard)
if sys.argv[1] == "--break":
    import socket
    socket.socket()
from countermark_ceremony.cli import main
main()
"""


def run(*arguments, cwd, expect=0):
    command = [sys.executable, "-c", GUARDED, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def tree(folder: Path):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def table(tmp_path):
    """A ceremony's table: plan, input and key files, as `key` made them or would have."""
    registry, holders = world.Registry(), world.Holders()
    input_raw = registry.input_raw()
    (tmp_path / "ceremony-input.json").write_bytes(input_raw)
    (tmp_path / "plan.toml").write_bytes(world.to_toml(world.plan_document(registry, holders, input_raw)))
    (tmp_path / "pass").write_bytes(world.PASSPHRASE + b"\n")
    for name in holders.keys:
        (tmp_path / f"{name}.key.json").write_bytes(holders.key_file(name))
    return tmp_path


def key_arguments(table, holder):
    return [word for path in sorted(table.glob(f"{holder}-*.key.json")) for word in ("--key", path.name)]


def sign(table, holder, expect=0):
    request = f"c/requests/{holder}.request.json"
    keys = key_arguments(table, holder)
    options = ["--out", f"{holder}.response.json", "--yes", "--passphrase-file", "pass"]
    return run("sign", request, *keys, *options, cwd=table, expect=expect)


def test_the_guard_itself_notices_a_socket(tmp_path):
    """A planted socket ends the process: the guard would catch a real one."""
    assert "GUARD: socket.__new__" in run("--break", cwd=tmp_path, expect=99).stderr


def test_a_whole_ceremony_opens_no_socket_and_ends_in_verified_files(table):
    """key, prepare, show, sign, assemble, verify: all of it offline, each output new."""
    made = run(
        "keys", "new", "--name", "spare", "--out", "spare.key.json", "--passphrase-file", "pass", cwd=table
    )
    assert made.stdout.startswith('public_key = "MF')
    assert (table / "spare.key.json").stat().st_mode & 0o777 == 0o600
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    shown = run("show", "c/requests/ada.request.json", cwd=table).stdout
    assert "1.root.json" in shown and "Compare the words" in shown
    for holder in ("ada", "cleo", "dora"):
        sign(table, holder)
    responses = [f"{holder}.response.json" for holder in ("ada", "cleo", "dora")]
    done = run("assemble", "c", *responses, "--out", "out", cwd=table)
    words = (table / "out" / "root-words.txt").read_text()
    assert done.stdout == words == run("verify", "out", cwd=table).stdout
    assert words.strip() in shown


def test_the_next_ceremony_follows_the_first_and_opens_no_socket(table):
    """prepare, show, sign, assemble, verify, simulate-client of a re-sign; too few answers write nothing."""
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    for holder in ("ada", "cleo", "dora"):
        sign(table, holder)
    first = [f"{holder}.response.json" for holder in ("ada", "cleo", "dora")]
    run("assemble", "c", *first, "--out", "root-1", cwd=table)
    for name in ("c", *first):
        (table / name).rename(table / f"first-{name}")
    base = history.verify(files.read_folder(table / "root-1"))[-1]
    holders = world.Holders()
    holders.keys = {
        path.name.removesuffix(".key.json"): keyfile.decrypt(path.read_bytes(), world.PASSPHRASE)
        for path in table.glob("*.key.json")
    }
    today = datetime.now(UTC).replace(microsecond=0)
    plan = world.next_document(base, holders, date=today)
    (table / "next.toml").write_bytes(world.to_toml(plan))
    (table / "dora-authority.key.json").unlink()
    run("prepare", "next.toml", "--out", "c", cwd=table)
    shown = run("show", "c/requests/ada.request.json", cwd=table).stdout
    assert "follows" in shown and "- root version 1" in shown and "+ root version 2" in shown
    sign(table, "ada")
    before = tree(table)
    short = run("assemble", "c", "ada.response.json", "--out", "root-2", cwd=table, expect=7)
    assert "2.root.json 1/2 by root 1: missing ben-root, cleo-root" in short.stderr
    assert tree(table) == before
    sign(table, "ben")
    done = run("assemble", "c", "ada.response.json", "ben.response.json", "--out", "root-2", cwd=table)
    assert "a client that trusts root 1 reaches root 2" in done.stderr
    assert "2 ceremonies" in run("verify", "root-2", cwd=table).stderr
    assert "a client that trusts root 1" in run("simulate-client", "root-2", cwd=table).stdout


def test_nothing_is_ever_overwritten(table):
    """Every command that writes refuses an output that exists, and leaves it as it was."""
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    sign(table, "ada")
    before = tree(table)
    run("prepare", "plan.toml", "--out", "c", cwd=table, expect=2)
    sign(table, "ada", expect=2)
    run("keys", "new", "--name", "x", "--out", "plan.toml", "--passphrase-file", "pass", cwd=table, expect=2)
    run("trial", "ceremony-input.json", "--out", "c", cwd=table, expect=2)
    assert "already exists" in sign(table, "ada", expect=2).stderr
    assert tree(table) == before


def test_a_refused_step_leaves_nothing_behind(table):
    """A bad plan, a wrong passphrase, too few responses, no answer: errors, and no file more."""
    run("prepare", "plan.toml", "--out", "c", cwd=table)
    sign(table, "ada")
    (table / "bad.toml").write_bytes((table / "plan.toml").read_bytes().replace(b"threshold", b"thresold", 1))
    (table / "wrong").write_bytes(b"wrong horse\n")
    before = tree(table)
    refused = run("prepare", "bad.toml", "--out", "d", cwd=table, expect=2)
    assert "thresold" in refused.stderr
    request, keys = "c/requests/ben.request.json", key_arguments(table, "ben")
    wrong = ["--out", "ben.response.json", "--yes", "--passphrase-file", "wrong"]
    assert "wrong passphrase" in run("sign", request, *keys, *wrong, cwd=table, expect=2).stderr
    unanswered = ["--out", "ben.response.json", "--passphrase-file", "pass"]
    run("sign", request, *keys, *unanswered, cwd=table, expect=2)
    short = run("assemble", "c", "ada.response.json", "--out", "out", cwd=table, expect=7)
    assert "too few signatures" in short.stderr
    assert tree(table) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nowhere.json"],
        ["show", "plan.toml"],
        ["verify", "nowhere"],
        ["assemble", "nowhere", "x", "--out", "y"],
        ["prepare", "nowhere.toml", "--out", "y"],
        ["sign", "plan.toml", "--key", "plan.toml", "--out", "y", "--yes"],
        ["nonsense"],
        ["keys", "new", "--name", "x", "--out", "y", "--passphrase-file", "nowhere"],
        ["trial", "plan.toml", "--out", "y"],
    ],
)
def test_bad_input_gets_a_sentence_and_no_traceback(table, arguments):
    """Usage errors end with 2, false or foreign files with 7; nothing is written."""
    before = tree(table)
    command = [sys.executable, "-m", "countermark_ceremony.cli", *arguments]
    done = subprocess.run(command, cwd=table, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (2, 7) and "Traceback" not in done.stderr and done.stderr
    assert tree(table) == before


def test_a_trial_is_one_command_and_marked(table):
    """The same steps, played by one program: the output verifies, and says what it is."""
    done = run("trial", "ceremony-input.json", "--out", "t", cwd=table)
    assert "(trial)" in done.stderr
    assert (table / "t" / "trial" / "keys" / "passphrase").read_text().count(" ") == 11
    assert {path.stat().st_mode & 0o777 for path in (table / "t" / "trial" / "keys").iterdir()} == {0o600}
    names = {path.relative_to(table / "t").as_posix() for path in tree(table / "t")}
    assert {"1.root.json", "1.targets.json", "1.trust.json", "1.index.json", "role-keys.json"} <= names


def test_a_trial_can_be_taken_up_again_by_its_holders(table):
    """Its requests, responses and key files are those of a real ceremony."""
    raw = (table / "ceremony-input.json").read_bytes()
    played = trial.play(raw, now=world.NOW, random=os.urandom, scrypt_n=world.N)
    assert assemble.verify_first(played, now=world.NOW).trial
    assert json.loads(played["trial/requests/ada.request.json"])["trial"] is True
