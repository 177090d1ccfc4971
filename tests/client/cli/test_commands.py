"""Every command of the client against a registry in memory behind a real socket."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path

import pytest

from countermark import __version__, cli, publish
from countermark.pins import Home, RootInfo
from countermark.serving import listening
from tests.simulator import LOGIN_CODE, World

PASSPHRASE = "for tests only"


class Shell:
    """One user's terminal: runs commands in this process, and sees what they print."""

    def __init__(self, world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.folder, self._capsys = world, folder, capsys
        self.out = self.err = ""

    def run(self, *words: object, expect: int = 0) -> str:
        code = cli.main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        assert code == expect, f"{code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        return self.out

    def json(self, *words: object, expect: int = 0) -> dict:
        return json.loads(self.run(*words, "--json", expect=expect))

    @property
    def words(self) -> str:
        return RootInfo.parse(self.world.root).words


@pytest.fixture
def world() -> Iterator[World]:
    """A registry at a free port of this machine, at this machine's time."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    world = World(base=f"http://127.0.0.1:{port}", now=int(time.time()))
    with listening(world.answer, "127.0.0.1", port, max_body=10_000_000) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield world
        server.shutdown()
        thread.join()


@pytest.fixture
def shell(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    for name in ("CI", "COUNTERMARK_REGISTRY", "COUNTERMARK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COUNTERMARK_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    return Shell(world, tmp_path, capsys)


def wheel(folder: Path, project: str = "acme-demo", version: str = "1.0", body: str = "hello") -> Path:
    """A small, well-formed wheel."""
    stem = f"{project.replace('-', '_')}-{version}"
    files = {
        f"{project.replace('-', '_')}/__init__.py": f'print("{body}")\n',
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items())
    files[f"{stem}.dist-info/RECORD"] = record + f"{stem}.dist-info/RECORD,,\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def sdist(folder: Path, project: str = "acme-demo", version: str = "1.0") -> Path:
    path = folder / f"{project.replace('-', '_')}-{version}.tar.gz"
    text = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(f"{project.replace('-', '_')}-{version}/PKG-INFO")
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def test_two_commands_for_a_first_signed_release(shell: Shell) -> None:
    """login and publish: key made and enrolled, signed, uploaded, listed, verified; the world stays whole."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    assert "signed in" in shell.out and "alice" in shell.out
    files = [wheel(shell.folder), sdist(shell.folder)]
    shell.run("publish", "--yes", *files)
    for file in files:
        (line,) = [line for line in shell.out.splitlines() if file.name in line]
        assert "verified" in line and "ms" in line and "entry #" in line and world.base in line
        assert file.with_name(file.name + ".publish.attestation").is_file()
    assert "enrolled for acme-demo" in shell.err and "proof checked" in shell.err
    world.check()
    entries = len(world.entries)
    shell.run("publish", "--yes", *shell.folder.glob("acme_demo*"))  # a dist/* glob takes the signatures in
    assert len(world.entries) == entries, "publishing again logged something"
    assert shell.json("verify", *files)["verified"]
    shell.run("status", *files, "--proofs", shell.folder / "countermark")
    assert shell.out.count("listed") == 2 and shell.out.count("proof checked") == 2
    assert len(list((shell.folder / "countermark").glob("*.tlog-proof"))) == 2
    assert shell.run("token", world.base).strip() == "the-token"


def test_sign_hands_the_statement_in_ahead_of_the_file(shell: Shell) -> None:
    """Signed, enrolled where it must be, submitted: the upload token suffices, and nothing is in the log yet."""
    world, file = shell.world, wheel(shell.folder)
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    shell.run("sign", "--yes", "--submit", file)
    assert shell.out == f"{file}.publish.attestation\n" and "upload the file with any tool until" in shell.err
    (said,) = world.ahead
    assert (said.subject_name, said.subject_sha256) == (
        file.name,
        hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    assert file.name not in world.pages.get("acme-demo", {})
    (document,) = shell.json("sign", "--submit", file)
    assert document["submitted"].endswith("Z") and set(document) == {"attestation", "keyid", "submitted"}
    shell.run("publish", "--yes", file)
    assert shell.json("sign", "--submit", file)[0]["submitted"] == "logged" and len(world.ahead) == 2
    world.check()


def test_a_statement_that_is_refused_is_said_with_the_reason(shell: Shell) -> None:
    """A revoked token, a broken answer, nobody signed in: an error each; the signature stays beside the file."""
    world, file = shell.world, wheel(shell.folder)
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    shell.run("sign", "--yes", file)
    session = shell.folder / "home" / "registries"
    (kept,) = session.rglob("session.json")
    good = kept.read_text("utf-8")
    kept.write_text(good.replace("the-token", "another"), encoding="utf-8")
    shell.run("sign", "--submit", file, expect=5)
    assert "no such token" in shell.err and file.name in shell.err
    kept.unlink()
    shell.run("sign", "--submit", file, expect=2)
    assert "countermark login" in shell.err and not world.ahead


def test_publish_without_a_terminal_needs_a_yes(shell: Shell) -> None:
    """Nobody there to confirm: the key is not enrolled, nothing is logged."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    entries = len(world.entries)
    shell.run("publish", wheel(shell.folder), expect=5)
    assert "--yes" in shell.err and "for ever" in shell.err
    assert len(world.entries) == entries


def test_a_held_upload_ends_with_6(shell: Shell) -> None:
    """The scanner wants somebody to look: logged, not listed, exit 6."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    world.next_tier = "queue"
    file = wheel(shell.folder)
    shell.run("publish", "--yes", file, expect=6)
    assert "held" in shell.err
    assert shell.json("status", file)["artifacts"][0]["state"] == "held"
    shell.run("verify", file, expect=6)


def test_a_code_is_not_given_to_a_stranger(shell: Shell, tmp_path: Path) -> None:
    """A fake at the address of a pinned registry is found out before it hears the one-time code."""
    real = World(keys="real", now=int(time.time()))
    root = tmp_path / "root.json"
    root.write_bytes(real.root)
    shell.run("trust", "add", shell.world.base, "--root", root)
    shell.run("login", shell.world.base, "--code", LOGIN_CODE, expect=7)
    assert "not the registry whose root is pinned" in shell.err
    assert "/api/v1/login" not in shell.world.asked
    shell.run("login", shell.world.base, "--code", "BAD", expect=7)


def test_wrong_words_pin_nothing(shell: Shell) -> None:
    """Words of another root: refused with both, and the home stays empty."""
    other = RootInfo.parse(World(keys="mallory").root).words
    shell.run("trust", "add", shell.world.base, "--root-words", other, expect=7)
    assert other in shell.err and shell.words in shell.err
    shell.run("login", shell.world.base, "--root-words", "not twelve words", "--code", "x", expect=2)
    assert not list((shell.folder).rglob("*root.json"))
    shell.run("verify", wheel(shell.folder), "--registry", shell.world.base, expect=5)
    assert "trust add" in shell.err


@pytest.mark.parametrize("command", [["verify", "WHEEL"], ["audit"], ["trust", "show"]])
def test_with_nothing_pinned_every_door_says_so_and_ends_with_5(shell: Shell, command: list[str]) -> None:
    """No trust is a matter of policy, whether a registry was named or not; nothing is asked or written."""
    words = [wheel(shell.folder) if word == "WHEEL" else word for word in command]
    shell.run(*words, expect=5)
    assert "no registry is pinned" in shell.err and "countermark trust add URL" in shell.err
    assert not list(shell.folder.rglob("*root.json"))


def test_trust_is_shown_and_listed(shell: Shell) -> None:
    """add, show and list say the words; JSON says the same."""
    shell.run("trust", "list")
    assert "no registry" in shell.err
    shell.run("trust", "add", shell.world.base + "/simple/", "--root-words", shell.words.upper())
    assert shell.words in shell.run("trust", "show")
    assert shell.json("trust", "show", shell.world.base)["words"] == shell.words
    assert json.loads(shell.run("trust", "list", "--json"))[0]["url"] == shell.world.base
    other = shell.folder / "other.json"
    other.write_bytes(World(keys="mallory").root)
    shell.run("trust", "add", shell.world.base, "--root", other, expect=5)
    assert "pinned to another root" in shell.err


def test_a_trial_registry_is_marked_and_refused_under_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every result says so; CI needs --allow-trial; trust on first use is never for CI."""
    from countermark.errors import PolicyError

    registry = Home(tmp_path).add("https://trial.test", World(trial=True).root)
    assert "trial registry" in registry.admit({}, allow_trial=False)[0]
    with pytest.raises(PolicyError, match="CI must not"):
        registry.admit({"CI": "true"}, allow_trial=False)
    assert registry.admit({"CI": "true"}, allow_trial=True)
    first = Home(tmp_path).add("https://tofu.test", World().root, first_use=True)
    assert "first use" in first.admit({}, allow_trial=True)[0]
    with pytest.raises(PolicyError, match="first use"):
        first.admit({"CI": "1"}, allow_trial=True)


def test_trust_on_first_use_is_marked(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exists, says what it is in every result, and is refused under CI."""
    monkeypatch.setenv("CI", "true")
    shell.run("trust", "add", shell.world.base, "--trust-on-first-use", expect=5)
    monkeypatch.delenv("CI")
    shell.run("trust", "add", shell.world.base, "--trust-on-first-use")
    file = shell.world.publish("acme-demo")
    path = shell.folder / file.filename
    path.write_bytes(file.data)
    assert "first use" in shell.json("verify", path)["remarks"][0]


def test_at_moves_forward_only(shell: Shell) -> None:
    """Judging as of the past would revive what has expired."""
    shell.run("trust", "add", shell.world.base, "--root-words", shell.words)
    file = shell.world.publish("acme-demo")
    path = shell.folder / file.filename
    path.write_bytes(file.data)
    shell.run("verify", path, "--at", "2020-01-01T00:00:00Z", expect=2)
    shell.run("verify", path, "--at", "soon", expect=2)
    shell.run("verify", path, "--at", "9" * 17, expect=2)
    shell.run("verify", path, "--at", int(time.time()) + 3600)
    shell.run("verify", path, "--at", int(time.time()) + 200 * 3600, expect=4)


def test_keys_are_made_listed_and_never_overwritten(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase from the environment, or deliberately none; no key without either."""
    first = shell.json("key", "new")
    assert first["keyid"] == shell.json("key", "show")["keyid"]
    shell.run("key", "new", expect=2)
    assert "already exists" in shell.err
    monkeypatch.delenv("COUNTERMARK_PASSPHRASE")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    shell.run("key", "new", "--name", "open", "--no-passphrase")
    assert "no passphrase" in shell.err
    shell.run("key", "new", "--name", "none", expect=2)
    shell.run("key", "new", "--name", "../escape", expect=2)
    assert {key["name"] for key in json.loads(shell.run("key", "list", "--json"))} == {"publisher", "open"}
    shell.run("key", "show", "nobody", expect=2)


@pytest.mark.parametrize(
    "name", ["x.whl", "x.tar.gz", "acme_demo-1.0-py3-none-any.whl", "acme_demo-1.0.tar.gz"]
)
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"junk" * 100])
def test_what_is_no_distribution_is_a_usage_error(shell: Shell, name: str, data: bytes) -> None:
    """Empty, truncated and foreign files, wrong names: exit 2, one line, no key made."""
    path = shell.folder / name
    path.write_bytes(data)
    shell.run("publish", path, expect=2)
    shell.run("sign", shell.folder / "absent.whl", expect=2)
    assert not (shell.folder / "home").exists()


def test_a_pattern_that_matched_nothing_is_a_missing_file(shell: Shell) -> None:
    """A shell hands `dist/*` over as it is when dist is empty: the file is missing, its name is not at fault."""
    shell.run("publish", shell.folder / "dist" / "*", expect=2)
    assert "No such file or directory" in shell.err


def test_no_command_shows_them_all(shell: Shell) -> None:
    """`countermark` alone is wrong usage, and says what there is."""
    shell.run(expect=2)
    assert "publish" in shell.err
    assert shell.out == ""


def test_an_unreachable_registry_is_3(shell: Shell) -> None:
    """Worth a retry, and says whom it could not reach."""
    root = shell.folder / "root.json"
    root.write_bytes(shell.world.root)
    shell.run("trust", "add", "http://127.0.0.1:1", "--root", root)
    shell.run("verify", wheel(shell.folder), expect=3)
    assert "127.0.0.1:1" in shell.err
    assert shell.json("verify", wheel(shell.folder), expect=3)["exit_code"] == 3


def test_which_registry_is_asked_when_there_are_several(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two pins a command needs --registry or COUNTERMARK_REGISTRY."""
    root = shell.folder / "root.json"
    root.write_bytes(shell.world.root)
    shell.run("trust", "add", shell.world.base, "--root", root)
    shell.run("trust", "add", "https://other.test", "--root", root)
    file = shell.world.publish("acme-demo")
    path = shell.folder / file.filename
    path.write_bytes(file.data)
    shell.run("verify", path, expect=2)
    monkeypatch.setenv("COUNTERMARK_REGISTRY", shell.world.base)
    shell.run("verify", path)


def test_an_upload_token_cannot_enrol(shell: Shell) -> None:
    """The session enrols; a stolen token in its place is refused and nothing is logged."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    registry = Home().registry(world.base)
    session = publish.Session.load(registry)
    stolen = publish.Session(**{**vars(session), "session": session.upload_token})
    stolen.save(registry)
    entries = len(world.entries)
    shell.run("publish", "--yes", wheel(shell.folder), expect=5)
    assert "interactive session" in shell.err
    assert len(world.entries) == entries


def test_a_false_proof_is_refused(shell: Shell) -> None:
    """The registry answers an upload with somebody else's proof."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    honest = world.proof
    world.proof = lambda index: honest(index).replace(f"index {index}", f"index {index - 1}")  # type: ignore[method-assign]
    shell.run("publish", "--yes", wheel(shell.folder), expect=7)
    assert "proof" in shell.err


def test_a_proof_of_somebody_elses_entry_is_refused(shell: Shell) -> None:
    """Index, leaf hash and proof are true, of another entry: `status` does not call that checked."""
    world = shell.world
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    path = wheel(shell.folder)
    shell.run("publish", "--yes", path)
    shell.run("status", path)
    api = f"/api/v1/files/acme-demo/{path.name}"
    honest = json.loads(world.get(world.base + api) or b"")
    other = {"index": 2, "leaf_hash": world.leaves[2].hex(), "proof": world.proof(2)}
    world.override[api] = json.dumps(honest | other).encode()
    shell.run("status", path, expect=7)
    assert "of another entry, #2" in shell.err
    del world.override[api]
    path = wheel(shell.folder, body="other bytes than were published")
    shell.run("status", path, expect=7)
    assert "says sha256" in shell.err


def test_words_are_compared_where_a_root_is_pinned_already(shell: Shell) -> None:
    """Words that are not this root's are refused, and true ones vouch for a root trusted on first use."""
    world = shell.world
    shell.run("trust", "add", world.base, "--trust-on-first-use")
    stranger = RootInfo.parse(World(keys="stranger").root).words
    shell.run("login", world.base, "--root-words", stranger, "--code", LOGIN_CODE, expect=7)
    assert Home().registry(world.base).first_use
    shell.run("login", world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    assert not Home().registry(world.base).first_use


def test_login_asks_for_words_where_no_root_is_pinned(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words come first, then the code; without words nothing is pinned and nothing sent."""
    monkeypatch.setattr("sys.stdin", StringIO("\n"))
    shell.run("login", shell.world.base, expect=5)
    assert list(Home().registries()) == []
    monkeypatch.setattr("sys.stdin", StringIO(f"{shell.words}\n{LOGIN_CODE}\n"))
    shell.run("login", shell.world.base)
    assert Home().registry(shell.world.base).info.words == shell.words


def test_an_answer_nobody_reads_is_not_an_approval(tmp_path: Path) -> None:
    """stdout closed before the result is written: whatever was refused, the exit code is not 0."""
    import subprocess

    code = "import sys; from countermark.cli import main; sys.exit(main(['trust', 'list', '--json']))"
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "COUNTERMARK_HOME": str(tmp_path)}
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=write, env=environment, check=False)
    finally:
        os.close(write)
    assert done.returncode == 141


def test_a_disk_that_refuses_is_not_a_bug(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is a file, a policy that is a folder: exit 2 with the path, not exit 1."""
    (shell.folder / "file").write_text("")
    monkeypatch.setenv("COUNTERMARK_HOME", str(shell.folder / "file"))
    shell.run("key", "new", "--no-passphrase", expect=2)
    assert str(shell.folder / "file") in shell.err
    shell.run("trust", "add", shell.world.base, "--root-words", shell.words, expect=2)


@pytest.mark.parametrize("url", ["http://[x", "http://host:port", "http://host:99999", "http://@host"])
def test_what_is_no_url_is_a_usage_error(shell: Shell, url: str) -> None:
    """Never a leaked ValueError."""
    shell.run("trust", "add", url, "--root-words", shell.words, expect=2)


def test_a_bug_is_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own mistakes end in exit 1 and a line, not in a traceback."""

    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("countermark.commands_key.list_keys", broken)
    shell.run("key", "list", expect=1)
    assert "bug: KeyError" in shell.err
    monkeypatch.setenv("COUNTERMARK_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main(["key", "list"])


def test_a_process_ends_with_the_code_and_all_that_was_said(shell: Shell) -> None:
    """The process is cut short at its end: what was printed arrives, and what could not arrive is not allowed."""
    command = [sys.executable, "-m", "countermark"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"countermark {__version__}\n")
    wrong = subprocess.run([*command, "verify"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "FILE" in wrong.stderr
    refused = subprocess.run([*command, "trust", "show"], capture_output=True, text=True, check=False)
    assert refused.returncode == 5 and "countermark: error: " in refused.stderr and refused.stdout == ""
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run([*command, "--version"], stdout=full, env=buffered, check=False)
    assert lost.returncode == 141


def test_garbage_is_collected_once_a_command_runs() -> None:
    """Only while modules are loaded nobody looks for garbage: an audit makes too much of it."""
    code = (
        "import gc, countermark.commands_trust as trust\n"
        "from countermark import __main__\n"
        "assert not gc.isenabled()\n"
        "trust.show = lambda arguments: 40 + gc.isenabled()\n"
        "__main__.run()"
    )
    done = subprocess.run([sys.executable, "-c", code, "trust", "show"], check=False)
    assert done.returncode == 41


def test_help_imports_no_engine() -> None:
    """`--help` and argument errors start without network, TUF or cryptography code."""
    code = (
        "import sys; from countermark import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('urllib3', 'tuf', 'cryptography') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_many_refusals_are_counted_and_the_gravest_come_first(shell: Shell) -> None:
    """A lock whose thousand pins nobody logged must not bury the one whose bytes were swapped."""
    shell.run("login", shell.world.base, "--root-words", shell.words, "--code", LOGIN_CODE)
    swapped = wheel(shell.folder)
    shell.run("publish", "--yes", swapped)
    unknown = [wheel(shell.folder, f"unknown-{number}") for number in range(25)]
    wheel(shell.folder, body="swapped")
    shell.run("verify", *unknown, swapped, expect=7)
    refused = [line for line in shell.err.splitlines() if "refused: " in line]
    assert len(refused) == 20 and swapped.name in refused[0]
    assert "6 more are refused" in shell.err
    assert len(shell.json("verify", *unknown, swapped, expect=7)["artifacts"]) == 26
