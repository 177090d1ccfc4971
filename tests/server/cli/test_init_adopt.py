"""init and adopt: as a whole or not at all, and only a ceremony for exactly this machine's keys."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from countermark import keyfile
from countermark.errors import CountermarkError, UsageError
from countermark.statement import Envelope, Statement, open_envelope
from countermark.tlog.policy import Policy
from countermark_server import adopted, db, signing
from countermark_server.operate import adoption
from countermark_server.operate.initialise import initialise
from countermark_server.settings import Settings
from countermark_server.stores import heads
from countermark_server.stores.public import Public

ORIGIN = "cli.test/registry"


def ceremony(data: Path, out: Path) -> Path:
    """The trial ceremony, run as the operator would."""
    argv = [sys.executable, "-m", "countermark_ceremony.cli", "trial", str(data / "ceremony-input.json")]
    subprocess.run([*argv, "--out", str(out)], check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised data directory and its finished ceremony, never touched by a test."""
    folder = tmp_path_factory.mktemp("pristine")
    initialise(folder / "data", ORIGIN, bit_length=3, environ={})
    ceremony(folder / "data", folder / "out")
    return folder


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".sqlite-" not in path.name
    }


def rows(settings: Settings) -> dict[str, list[object]]:
    engine = db.open_engine(settings.database_url)
    with db.read(engine) as connection:
        found = {
            name: list(map(tuple, connection.execute(select(table)).all()))
            for name, table in db.metadata.tables.items()
        }
    engine.dispose()
    return found


# --- init ---------------------------------------------------------------------------------------------------


def test_init_keeps_every_private_key_encrypted_and_private(pristine: Path) -> None:
    """Key files and the passphrase are 0600, folders 0700; ceremony-input.json has public halves only."""
    data = pristine / "data"
    assert stat.S_IMODE(data.stat().st_mode) == stat.S_IMODE((data / "keys").stat().st_mode) == 0o700
    names = (*signing.ROLES, *signing.TUF_ROLES, signing.LOG_ED25519, signing.LOG_MLDSA44)
    for name in names:
        path = signing.key_path(data, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keyfile.KeyFile.parse(path.read_bytes()).name == name
    assert stat.S_IMODE((data / "passphrase").stat().st_mode) == 0o600
    text = (data / "ceremony-input.json").read_text()
    assert "PRIVATE" not in text and (data / "passphrase").read_text().strip() not in text


def test_the_ceremony_input_says_who_we_are(pristine: Path) -> None:
    """Two log keys, a witness with a quorum of one, three TUF keys, three half-signed enrolments."""
    document = json.loads((pristine / "data" / "ceremony-input.json").read_text())
    policy = Policy.parse(document["witness_policy"])
    assert [key.format() for key in policy.log_keys(ORIGIN)] == document["log_vkeys"]
    assert [key.type for key in policy.log_keys(ORIGIN)] == [1, 6]
    assert policy.quorum_time({"witness-1": 7}) == 7 and policy.quorum_time({}) is None
    assert set(document["tuf_keys"]) == {"bins", "snapshot", "timestamp"}
    for role, given in document["role_keys"].items():
        spki = signing.public_key(pristine / "data", role)
        envelope = Envelope.parse(given)
        statement = open_envelope(envelope, {envelope.keyids[0]: spki}).statement
        assert statement.predicate["scope"] == role and statement.predicate["prev"] is None


def test_init_never_touches_what_exists(tmp_path: Path) -> None:
    """A folder with anything in it is refused and stays as it is."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        initialise(tmp_path / "data", ORIGIN)
    assert tree(tmp_path) == {"data/x": b"mine"}


@pytest.mark.parametrize(
    "origin", ["", "https://x.test", "a b", "a+b", "x.test/", "\u00e9.test", "x\n", "a" * 201]
)
def test_what_is_no_origin_is_refused(tmp_path: Path, origin: str) -> None:
    """An origin is a name, never a URL; nothing is made for a wrong one."""
    with pytest.raises(UsageError, match="origin"):
        initialise(tmp_path / "data", origin)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["x.test", "ftp://x.test", "https://x.test/", "https://", "https://x.test/?q=1"]
)
def test_what_is_no_base_url_is_refused(tmp_path: Path, url: str) -> None:
    """Scheme and host, no slash at the end."""
    with pytest.raises(UsageError, match="base URL"):
        initialise(tmp_path / "data", ORIGIN, url)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_init_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory is there as a whole or not at all."""
    monkeypatch.setattr("countermark_server.operate.initialise._make_witness", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        initialise(tmp_path / "data", ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_of_the_operator_is_not_written_down(tmp_path: Path) -> None:
    """With COUNTERMARK_KEY_PASSPHRASE there is no passphrase file, and no key opens without it."""
    environ = {signing.PASSPHRASE_VARIABLE: "mine alone"}
    initialise(tmp_path / "data", ORIGIN, environ=environ)
    assert b"mine alone" not in b"".join(tree(tmp_path / "data").values())
    with pytest.raises(UsageError, match="no passphrase"):
        signing.load_key(tmp_path / "data", "registry", {})
    signing.load_key(tmp_path / "data", "registry", environ)


# --- adopt --------------------------------------------------------------------------------------------------


def test_adopt_publishes_the_metadata_and_creates_the_log(folder: Path, settings: Settings) -> None:
    """Root, targets, trust, index and trust file are public, immutable; three enrolments wait; no key moved."""
    assert not adoption.is_adopted(settings)
    found = adoption.adopt(settings, folder / "out", now=int(time.time()))
    assert found.trial and found.words == (folder / "out" / "root-words.txt").read_text().strip()
    assert adoption.is_adopted(settings)
    public = Public(settings.public)
    for name in ("1.root.json", "1.targets.json", "1.trust.json", "1.index.json"):
        assert public.read(f"tuf/{name}") == (folder / "out" / name).read_bytes()
        assert stat.S_IMODE((settings.public / "tuf" / name).stat().st_mode) == 0o444
    assert adopted.trust_file(public) == found.trust
    root = (folder / "out" / "1.root.json").read_bytes()
    assert (settings.data / "timestamper" / "root.json").read_bytes() == root
    assert not [name for name in tree(settings.public) if "key" in name or "trial" in name]
    proposals = rows(settings)["proposal"]
    assert [row[1] for row in proposals] == ["key-enroll"] * 3


def test_adopting_twice_is_refused(folder: Path, settings: Settings) -> None:
    """A log begins once."""
    adoption.adopt(settings, folder / "out", now=int(time.time()))
    before = tree(settings.data), rows(settings)
    with pytest.raises(UsageError, match="already"):
        adoption.adopt(settings, folder / "out", now=int(time.time()))
    assert (tree(settings.data), rows(settings)) == before


def test_a_crash_between_files_and_log_is_repeated(folder: Path, settings: Settings, monkeypatch) -> None:
    """The files are there, the log is not: adopting again completes it."""
    with monkeypatch.context() as patch:
        patch.setattr(adoption, "create", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            adoption.adopt(settings, folder / "out", now=int(time.time()))
    assert not adoption.is_adopted(settings)
    adoption.adopt(settings, folder / "out", now=int(time.time()))
    assert adoption.is_adopted(settings)


def refused(folder: Path, settings: Settings, match: str | None = None, *, now: int | None = None) -> None:
    before = tree(settings.data), rows(settings)
    with pytest.raises(CountermarkError, match=match):
        adoption.adopt(settings, folder / "out", now=now or int(time.time()))
    assert (tree(settings.data), rows(settings)) == before


def test_another_registrys_ceremony_is_refused(folder: Path, settings: Settings) -> None:
    """Same origin even: the keys in it are not on this machine."""
    initialise(folder / "other", ORIGIN, bit_length=3)
    shutil.rmtree(folder / "out")
    ceremony(folder / "other", folder / "out")
    refused(folder, settings, "not the ones on this machine")


@pytest.mark.parametrize("key", ["bins", "snapshot", "timestamp", "registry", "scanner", "moderation"])
def test_a_key_that_changed_since_is_refused(folder: Path, settings: Settings, key: str) -> None:
    """Each single online key must be the one the ceremony saw."""
    initialise(folder / "other", ORIGIN, bit_length=3)
    passphrase = signing.passphrase(settings.data, {})
    stranger = signing.load_key(folder / "other", key, {})
    raw = keyfile.encrypt(stranger, passphrase, name=key, salt=os.urandom(16), n=1024)
    signing.key_path(settings.data, key).write_bytes(raw)
    refused(folder, settings, key)


@pytest.mark.parametrize("name", ["1.root.json", "1.targets.json", "1.trust.json", "1.index.json"])
@pytest.mark.parametrize("change", ["signature", "threshold", "content", "cut", "gone"])
def test_altered_metadata_is_refused(folder: Path, settings: Settings, name: str, change: str) -> None:
    """One flipped signature bit too many, a signature less than the threshold, any other content."""
    path = folder / "out" / name
    document = json.loads(path.read_text())
    if change == "signature":
        for signature in document["signatures"][:2]:
            last = int(signature["sig"][-2:], 16) ^ 1
            signature["sig"] = f"{signature['sig'][:-2]}{last:02x}"
    elif change == "threshold":
        document["signatures"] = document["signatures"][:1]
    elif change == "content":
        document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document) if change != "cut" else path.read_text()[:-9])
    if change == "gone":
        path.unlink()
    refused(folder, settings)


def test_an_altered_trust_file_is_refused(folder: Path, settings: Settings) -> None:
    """The trust file's bytes are those that trust lists."""
    (path,) = (folder / "out" / "targets" / "trust").iterdir()
    path.write_bytes(path.read_bytes().replace(b"enforce", b"observe"))
    refused(folder, settings)


def test_an_expired_ceremony_is_refused(folder: Path, settings: Settings) -> None:
    """A root from a drawer."""
    refused(folder, settings, "expires", now=int(time.time()) + 10 * 366 * 86400)


@pytest.mark.parametrize("change", ["swap", "drop", "unsigned", "empty", "list", "other"])
def test_altered_role_keys_are_refused(folder: Path, settings: Settings, change: str) -> None:
    """Every role key is enrolled by itself and the authority, for its own role."""
    path = folder / "out" / "role-keys.json"
    document = json.loads(path.read_text())
    if change == "swap":
        document["registry"], document["scanner"] = document["scanner"], document["registry"]
    elif change == "drop":
        del document["moderation"]
    elif change == "unsigned":
        document["scanner"]["signatures"] = document["scanner"]["signatures"][:1]
    elif change == "list":
        document = [document]
    elif change == "other":
        document["registry"] = "x"
    path.write_text(json.dumps(document) if change != "empty" else "")
    refused(folder, settings)


def test_a_ceremony_with_another_witness_policy_is_refused(folder: Path, settings: Settings) -> None:
    """What `init` asked for is what must come back."""
    path = settings.data / "ceremony-input.json"
    document = json.loads(path.read_text())
    document["witness_policy"] = document["witness_policy"].replace("quorum witness-1", "quorum none")
    path.write_text(json.dumps(document))
    refused(folder, settings, "witness policy")


def test_the_head_is_a_signed_empty_tree(folder: Path, settings: Settings) -> None:
    """Witnesses are shown size 0 first."""
    adoption.adopt(settings, folder / "out", now=int(time.time()))
    engine = db.open_engine(settings.database_url)
    with db.read(engine) as connection:
        head = heads.load(connection, ORIGIN)
    engine.dispose()
    assert head is not None and head.tree_size == 0 and head.body.startswith(f"{ORIGIN}\n0\n")


# --- the command line ---------------------------------------------------------------------------------------


def command(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "countermark_server.cli", *map(str, arguments)]
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env}
    )


def test_the_commands_print_data_on_stdout_and_talk_on_stderr(tmp_path: Path) -> None:
    """init, adopt, account add, login-code, fsck: the ways an operator meets them."""
    data = tmp_path / "data"
    done = command("init", "--data", data, "--origin", ORIGIN, "--bit-length", "3")
    assert done.returncode == 0 and "registry" in done.stdout and "next: a ceremony" in done.stderr
    out = ceremony(data, tmp_path / "out")
    done = command("adopt", "--data", data, out)
    assert done.returncode == 0 and len(done.stdout.split()) == 12 and "trial" in done.stderr
    done = command("account", "add", "--data", data, "ada")
    assert done.returncode == 0 and len(done.stdout.strip()) == 32
    done = command("login-code", "--data", data, "--login", "ada")
    assert done.returncode == 0 and done.stdout.count("-") == 3 and "for 10 minutes" in done.stderr
    done = command("login-code", "--data", data, "--login", "grace")
    assert done.returncode == 0 and "made account" in done.stderr
    done = command("fsck", "--data", data)
    assert (done.returncode, done.stdout) == (0, "") and "no findings" in done.stderr


def test_help_says_what_each_command_does_to_the_end_of_the_sentence() -> None:
    """A list of commands that breaks off with dots helps nobody to choose one."""
    said = " ".join(command("--help").stdout.split())
    assert "..." not in said.partition("Commands:")[2]
    assert "once and within ten minutes (`countermark login`)." in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("fsck",), 2),
        (("work", "log"), 2),
        (("work", "nothing"), 2),
        (("work", "scan", "--accept-unwitnessed-start"), 2),
        (("adopt", "/nowhere"), 2),
        (("up", "--listen", "127.0.0.1:1"), 2),
        (("login-code", "--login", "ada"), 2),
        (("init", "--origin", "https://x.test"), 2),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """Exit 2, no traceback, nothing made."""
    done = command(*arguments, "--data", tmp_path / "none")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.strip()
    assert list(tmp_path.iterdir()) == []


def test_a_bad_settings_file_is_named(folder: Path) -> None:
    """Unknown sections and names, wrong types: one sentence with the name."""
    for text in ("[logg]\n", "[log]\nbatchh = 3\n", "[log]\nbatch = 'x'\n", "[log\n"):
        (folder / "data" / "settings.toml").write_text(text)
        done = command("fsck", "--data", folder / "data")
        assert done.returncode == 2
        assert "settings.toml" in done.stderr or "log.batch" in done.stderr
        assert "Traceback" not in done.stderr


def test_statement_of_a_role_key_is_about_that_key(pristine: Path) -> None:
    """Subject `key:<keyid>`."""
    document = json.loads((pristine / "data" / "ceremony-input.json").read_text())
    statement = Statement.parse(Envelope.parse(document["role_keys"]["registry"]).payload)
    assert statement.subject_name.startswith("key:")
