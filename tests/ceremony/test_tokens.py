"""Keys on tokens: made, shown and used for signing; what a wrong PIN, token or key is told, and what it leaves."""

import importlib
import subprocess
import sys
import time

import pytest
from tuf.api.metadata import Metadata, Root

from countermark import tokens
from countermark.errors import SignatureError, UsageError
from countermark_server.operate import adoption
from countermark_server.operate.initialise import initialise
from countermark_server.settings import load
from countermark_server.stores.public import Public
from tests import ceremony_world as world
from tests.ceremony.test_commands import GUARDED, tree
from tests.softhsm import PIN, SoftHsm

HOLDERS = ("ada", "ben", "cleo", "dan", "eve")
ON_TOKENS = {"ada": "hsm", "ben": "hsm", "cleo": "pkcs11ed"}  # dan and eve have key files


@pytest.fixture
def drawer(tmp_path):
    (tmp_path / "pin").write_text(f"{PIN}\n")
    (tmp_path / "wrong").write_text("4321\n")
    (tmp_path / "pass").write_bytes(world.PASSPHRASE + b"\n")
    return SoftHsm(tmp_path.parent / f"{tmp_path.name}-hsm")


def run(*arguments, drawer, cwd, expect=0):
    command = [sys.executable, "-c", GUARDED, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=drawer.environment,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


def made(uri, drawer, cwd):
    """A key on a token: the plan's table for it."""
    done = run("keys", "new", "--name", uri, "--token", uri, "--pin-file", "pin", drawer=drawer, cwd=cwd)
    lines = dict(line.split(" = ", 1) for line in done.stdout.splitlines())
    return lines["public_key"].strip('"'), done.stdout


@pytest.mark.parametrize("scheme", ["hsm", "pkcs11ed"])
def test_a_key_is_made_once_and_its_public_half_is_the_same_ever_after(drawer, tmp_path, scheme):
    """new, import and show say the same key; a second key under its id is refused, and the first remains."""
    drawer.token("ada root")
    uri = f"{scheme}:2?label=ada+root"
    _, printed = made(uri, drawer, tmp_path)
    again = ["keys", "new", "--name", "x", "--token", uri, "--pin-file", "pin"]
    assert "already holds" in run(*again, drawer=drawer, cwd=tmp_path, expect=2).stderr
    for command in ("import", "show"):
        assert run("keys", command, uri, drawer=drawer, cwd=tmp_path).stdout == printed
    assert 'vendor = "SoftHSM project"' in printed and f'uri = "{uri}"' in printed


def test_three_of_five_sign_with_files_and_both_kinds_of_token(drawer, tmp_path):
    """Five holders, three with tokens: plan, prepare, sign, assemble, verify and adopt, three of five everywhere."""
    data = tmp_path.parent / f"{tmp_path.name}-data"
    initialise(data, world.ORIGIN, bit_length=2, environ={})
    table(drawer, tmp_path, (data / "ceremony-input.json").read_bytes())
    warned = run("prepare", "plan.toml", "--out", "c", drawer=drawer, cwd=tmp_path).stderr
    assert "warning: root: 3 of its keys, a threshold of 3, are on tokens of 'SoftHSM project'" in warned
    signed = [sign(holder, drawer, tmp_path) for holder in ("ada", "cleo", "dan")]
    short = run("assemble", "c", *signed[:2], "--out", "out", drawer=drawer, cwd=tmp_path, expect=7)
    assert "too few signatures" in short.stderr and not (tmp_path / "out").exists()
    run("assemble", "c", *signed, sign("dora", drawer, tmp_path), "--out", "out", drawer=drawer, cwd=tmp_path)
    words = run("verify", "out", drawer=drawer, cwd=tmp_path).stdout.strip()
    settings = load(data, {})
    assert adoption.adopt(settings, tmp_path / "out", now=int(time.time())).words == words
    served = Public(settings.public).read("tuf/1.root.json")
    root = Metadata[Root].from_bytes(served).signed
    assert root.roles["root"].threshold == 3
    assert {root.keys[keyid].scheme for keyid in root.roles["root"].keyids} == {
        "ecdsa-sha2-nistp256",
        "ed25519",
    }


def test_a_wrong_pin_token_or_key_signs_nothing_and_writes_nothing(drawer, tmp_path):
    """Each refusal names the token and the next step; the ceremony's table is as it was before."""
    table(drawer, tmp_path)
    run("prepare", "plan.toml", "--out", "c", drawer=drawer, cwd=tmp_path)
    before = tree(tmp_path)
    mine = [f"hsm:{number}?label=ben" for number in (1, 2, 3)]
    theirs = [*mine[:2], "hsm:3?label=ada"]
    for uris, pin, said in [
        (mine, "wrong", "wrong PIN for token 'ben'; nothing was signed"),
        (theirs, "pin", "needs the keys of ben-trust"),
        ([*mine, "hsm:1?label=ada"], "pin", "is not asked for"),
        ([*mine[:2], "hsm:3?label=gone"], "pin", "no token labelled 'gone' is present"),
        ([*mine[:2], "hsm:9?label=ben"], "pin", "does not hold exactly one ECDSA key with id 9"),
        ([*mine[:2], "pkcs11ed:3?label=ben"], "pin", "does not hold exactly one Ed25519 key with id 3"),
        ([*mine[:2], "hsm:03?label=ben"], "pin", "names no key on a token"),
    ]:
        arguments = [word for uri in uris for word in ("--token", uri)]
        request = ["sign", "c/requests/ben.request.json", *arguments, "--pin-file", pin]
        done = run(*request, "--out", "ben.response.json", "--yes", drawer=drawer, cwd=tmp_path, expect=2)
        assert said in done.stderr
        assert tree(tmp_path) == before


def test_a_request_that_names_another_place_than_the_plan_signs_nothing(drawer, tmp_path):
    """Tampered: a place with another key, one that is absent, one that is no place; no PIN is asked for."""
    table(drawer, tmp_path)
    run("prepare", "plan.toml", "--out", "c", drawer=drawer, cwd=tmp_path)
    request = (tmp_path / "c/requests/ada.request.json").read_text()
    for number, (other, said) in enumerate(
        [
            ("hsm:3?label=ben", "needs the keys of ada-trust"),
            ("hsm:3?label=gone", "no token labelled 'gone' is present"),
            ("hsm:3", "names no key on a token"),
        ]
    ):
        lied = tmp_path / f"{number}.request.json"
        lied.write_text(request.replace("hsm:3?label=ada", other))
        before = tree(tmp_path)
        arguments = ["sign", lied.name, "--pin-file", "pin", "--out", "ada.response.json", "--yes"]
        assert said in run(*arguments, drawer=drawer, cwd=tmp_path, expect=2).stderr
        assert tree(tmp_path) == before


def test_the_words_are_shown_before_the_pin_is_asked_for(drawer, tmp_path):
    """Nobody can answer here: the words are on the screen, then the question, and no PIN was wanted before."""
    table(drawer, tmp_path)
    run("prepare", "plan.toml", "--out", "c", drawer=drawer, cwd=tmp_path)
    request = ["sign", "c/requests/ada.request.json", "--out", "ada.response.json"]
    unanswered = run(*request, drawer=drawer, cwd=tmp_path, expect=2).stderr
    assert "words  " in unanswered and "PIN of" not in unanswered
    unlocked = run(*request, "--yes", drawer=drawer, cwd=tmp_path, expect=2).stderr
    assert unlocked.index("words  ") < unlocked.index("PIN of token 'ada'")
    assert not (tmp_path / "ada.response.json").exists()


def test_a_token_is_reached_only_when_a_uri_names_one(drawer, tmp_path):
    """A library that does not open stops `--token`, and is never loaded for key files."""
    broken = SoftHsm(tmp_path / "broken")
    broken.environment = dict(broken.environment) | {"PYKCS11LIB": "/nowhere.so"}
    shown = ["keys", "show", "hsm:1?label=ada"]
    assert "opens as no PKCS#11 library" in run(*shown, drawer=broken, cwd=tmp_path, expect=2).stderr
    made = ["keys", "new", "--name", "x", "--out", "x.json", "--passphrase-file", "pass"]
    run(*made, drawer=broken, cwd=tmp_path)
    assert (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("problem", "said"),
    [("PinLocked", "is locked"), ("MultipleTokensReturned", "several tokens"), ("DeviceRemoved", "failed")],
)
def test_what_softhsm_cannot_show_is_said_too(monkeypatch, problem, said):
    """A locked, doubled or removed device is a sentence about the token, whatever call it comes from."""
    error = getattr(importlib.import_module("pkcs11.exceptions"), problem)

    def fails(place):
        raise error

    monkeypatch.setattr(tokens, "_token", fails)
    with pytest.raises(UsageError, match=said):
        tokens.public_key(tokens.Place.parse("hsm:2?label=ada"))


def test_a_token_whose_halves_differ_is_found_before_anything_is_signed():
    """A public half beside another's private key: SignatureError, not a response that fails at assembly."""
    key, other = world.p256(), world.p256()
    from securesystemslib.signer import CryptoSigner, SSlibKey

    signer = tokens.TokenSigner(CryptoSigner(other), b"", tokens.Place.parse("hsm:2?label=ada"))
    with pytest.raises(SignatureError, match="halves that differ"):
        tokens._check_halves(signer, SSlibKey.from_crypto(key.public_key()), signer._place)


def table(drawer, folder, input_raw=None):
    """Plan, input, key files and tokens of five holders, and of dora, who has the authority key."""
    registry, holders = world.Registry(), world.Holders(names=HOLDERS)
    input_raw = input_raw or registry.input_raw()
    document = world.plan_document(registry, holders, input_raw)
    for role in document["roles"].values():
        role["threshold"] = 3
    placed = ("ada", "cleo")  # the plan says where their keys lie; ben names his himself
    for holder, scheme in ON_TOKENS.items():
        drawer.token(holder)
        for number, role in enumerate(("root", "targets", "trust"), start=1):
            uri = f"{scheme}:{number}?label={holder}"
            public, _ = made(uri, drawer, folder)
            token = {"vendor": "SoftHSM project", "serial": holder} | (
                {"uri": uri} if holder in placed else {}
            )
            document["keys"][f"{holder}-{role}"] |= {"public_key": public, "token": token}
    for name in holders.keys:
        (folder / f"{name}.key.json").write_bytes(holders.key_file(name))
    (folder / "ceremony-input.json").write_bytes(input_raw)
    (folder / "plan.toml").write_bytes(world.to_toml(document))


def sign(holder, drawer, folder):
    if holder in ("ada", "cleo"):  # where the plan said
        held = []
    elif scheme := ON_TOKENS.get(holder):
        held = [w for number in (1, 2, 3) for w in ("--token", f"{scheme}:{number}?label={holder}")]
    else:
        held = [w for path in sorted(folder.glob(f"{holder}-*.key.json")) for w in ("--key", path.name)]
    files = ["--passphrase-file", "pass", "--pin-file", "pin", "--out", f"{holder}.response.json", "--yes"]
    run("sign", f"c/requests/{holder}.request.json", *held, *files, drawer=drawer, cwd=folder)
    return f"{holder}.response.json"
