"""The whole story over real processes: a ceremony, a publisher, a log, an installer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sshagent
from tests.world.world import World, as_json, fresh

PROJECT = "hello-countermark"
WHEEL = "hello_countermark-1.0.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry of six processes after a ceremony of three custodians."""
    with fresh(tmp_path_factory.mktemp("world"), settings={"COUNTERMARK_TUF_MIN_INTERVAL": "0.2"}) as world:
        world.init()
        ceremony = world.ceremony()
        world.up("--ceremony", ceremony)
        world.login("alice", world.words(ceremony))
        yield world


@pytest.fixture(scope="module")
def dist(world: World) -> Path:
    """A wheel and a source distribution, built on the spot."""
    return world.project(PROJECT)


def test_from_upload_to_install(world: World, dist: Path) -> None:
    """Published with two commands, logged, scanned, listed in TUF, installed by plain pip, and verified."""
    done = world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    assert WHEEL in done.out

    page = json.loads(world.get(f"/simple/{PROJECT}/"))
    assert {file["filename"] for file in page["files"]} == {path.name for path in dist.iterdir()} - {
        path.name for path in dist.glob("*.attestation")
    }
    python = world.machine("pip-bob")
    world.run(python, "-m", "pip", "install", "--no-input", "-i", f"{world.url}/simple/", PROJECT)
    assert world.run(python, "-c", "import hello_countermark").out == "hello\n"

    verified = as_json(world.run("countermark", "verify", "--json", dist / WHEEL))
    assert verified["exit_code"] == 0 and verified["verified"] is True


def test_the_same_bytes_again_make_no_second_entry(world: World, dist: Path) -> None:
    """Uploading once more is answered with the entry that exists; the log does not grow by a publish."""
    before = as_json(world.run("countermark", "status", "--json", dist / WHEEL))
    world.run(
        "twine", "upload", "--non-interactive", "--repository-url", f"{world.url}/legacy/",
        "-u", "__token__", "-p", world.token(), dist / WHEEL,
    )  # fmt: skip
    assert as_json(world.run("countermark", "status", "--json", dist / WHEEL)) == before


def test_twine_publishes_what_sign_signed(world: World) -> None:
    """Unmodified twine carries the attestation; `status` fetches the proof that twine drops."""
    dist = world.project("by-twine")
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    world.run(
        "twine", "upload", "--non-interactive", "--attestations", "--repository-url", f"{world.url}/legacy/",
        "-u", "__token__", "-p", world.token(), *sorted(dist.iterdir()),
    )  # fmt: skip
    wheel = next(dist.glob("*.whl"))
    assert "listed" in world.run("countermark", "status", "--wait", wheel).out
    world.run("countermark", "verify", wheel)


def test_waiting_for_what_was_never_uploaded_accuses_nobody(world: World) -> None:
    """`status --wait` before the upload: the registry has never taken it (5), and is not said to have lost it (7)."""
    wheel = next(world.project("not-uploaded").glob("*.whl"))
    done = world.run("countermark", "status", "--wait", wheel, expect=5)
    assert "has never taken not_uploaded-1.0.0-py3-none-any.whl" in done.said


def test_uv_publishes_what_sign_signed(world: World) -> None:
    """Unmodified `uv publish dist/*` carries the attestations that lie there; the file verifies as signed."""
    dist = world.project("by-uv")
    world.run("countermark", "sign", "--yes", *sorted(dist.iterdir()))
    world.run(
        "uv", "publish", "--publish-url", f"{world.url}/legacy/", "--token", world.token(), *sorted(dist.iterdir())
    )  # fmt: skip
    wheel = next(dist.glob("*.whl"))
    assert "listed" in world.run("countermark", "status", "--wait", wheel).out
    verified = as_json(world.run("countermark", "verify", "--json", wheel))
    assert verified["verified"] is True


def test_a_scoped_token_is_for_its_project_alone(world: World) -> None:
    """Made, used by uv, refused elsewhere in words that uv prints, listed with its use, revoked, dead."""
    dist, other = world.project("scoped"), world.project("elsewhere")
    scope = ("--project", "scoped", "--action", "upload", "--days", "1")
    done = world.run("countermark", "tokens", "make", "ci", *scope)
    token, (token_id,) = done.out.strip(), re.findall(r"token ([0-9a-f]{16}),", done.err)
    publish = ("uv", "publish", "--publish-url", f"{world.url}/legacy/", "--token", token)
    world.run(*publish, *sorted(dist.iterdir()))
    refused = world.run(*publish, *sorted(other.iterdir()), expect=2)
    assert f"this token ({token_id}) is for scoped, not for elsewhere" in " ".join(refused.said.split())
    listed = world.run("countermark", "tokens", "list").out
    assert f"{token_id}  ci  alice, last used 20" in listed and "upload for scoped until" in listed
    world.run("countermark", "tokens", "revoke", token_id)
    gone = world.run(*publish, *sorted(world.project("scoped", "1.0.1").iterdir()), expect=2)
    assert "expired or was revoked" in " ".join(gone.said.split())
    operator = world.run(
        "countermark-server", "token", "list", "--data", world.data, "alice", **world.settings
    )
    assert f'"id": "{token_id}"' in operator.out


@pytest.mark.parametrize("tool", ["twine", "uv"])
def test_a_signature_goes_ahead_of_any_upload(world: World, tool: str) -> None:
    """`sign --submit`, then an unmodified tool with no attestation in sight: logged as signed, and it verifies."""
    dist = world.project(f"ahead-by-{tool}")
    files = sorted(dist.iterdir())
    world.run("countermark", "sign", "--yes", "--submit", *files)
    for attestation in dist.glob("*.attestation"):
        attestation.unlink()
    url = f"{world.url}/legacy/"
    if tool == "uv":
        world.run("uv", "publish", "--publish-url", url, "--token", world.token(), *files)
    else:
        world.run(
            "twine", "upload", "--non-interactive", "--repository-url", url,
            "-u", "__token__", "-p", world.token(), *files,
        )  # fmt: skip
    for file in files:
        assert "listed" in world.run("countermark", "status", "--wait", file).out
        (result,) = as_json(world.run("countermark", "verify", "--json", file))["artifacts"]  # type: ignore[misc]
        assert result["verified"] is True and result["signed_by"]["party"] == "publisher", result
    later = world.project(f"ahead-by-{tool}", "1.0.1")
    done = world.run(
        "twine", "upload", "--non-interactive", "--repository-url", url,
        "-u", "__token__", "-p", world.token(), *sorted(later.glob("*.whl")), expect=1,
    )  # fmt: skip
    assert "countermark sign --submit" in " ".join(done.said.split())


def test_a_fleet_gets_its_root_by_a_wheel(world: World, dist: Path) -> None:
    """trust-package, real pip, one line of pinning: a machine that never saw the registry verifies a release."""
    out = world.root / "trust"
    command = ["countermark-server", "trust-package", "--data", world.data, "--url", world.url, "--out", out]
    words = world.run(*command).out.strip()
    assert words == (out / "root-words.txt").read_text(encoding="utf-8").strip()
    world.run(*command, expect=2)  # never over an older one
    python = world.machine("pip-fleet")
    wheel = next(out.glob("countermark_trust_*-1-py3-none-any.whl"))
    world.run(python, "-m", "pip", "install", "--no-input", "--no-index", wheel)
    module = wheel.name.split("-", maxsplit=1)[0]
    root = world.run(python, "-m", module).out.strip()
    assert Path(root).read_bytes() == (out / "root.json").read_bytes()
    world.run("countermark", "verify", dist / WHEEL, home="fleet", expect=5)
    wrong = " ".join(reversed(words.split()))
    world.run(
        "countermark",
        "trust",
        "add",
        world.url,
        "--root",
        root,
        "--root-words",
        wrong,
        home="fleet",
        expect=None,
    )
    world.run("countermark", "verify", dist / WHEEL, home="fleet", expect=5)  # nothing was pinned
    world.run("countermark", "trust", "add", world.url, "--root", root, "--root-words", words, home="fleet")
    verified = as_json(world.run("countermark", "verify", "--json", dist / WHEEL, home="fleet"))
    assert verified["verified"] is True


def test_a_restart_loses_nothing(world: World, dist: Path) -> None:
    """After a stop and a start the log is the same, grows on, and is clean from its first byte."""
    before = world.get("/log/checkpoint").decode().splitlines()
    world.down()
    done = world.run("countermark-server", "fsck", "--data", world.data)
    assert done.code == 0
    world.up()
    after = world.get("/log/checkpoint").decode().splitlines()
    assert after[0] == before[0] and int(after[1]) >= int(before[1])
    world.run("countermark", "verify", dist / WHEEL)


def test_an_owner_shares_a_project_and_a_lost_key_is_asked_back(world: World) -> None:
    """`owner add`, an upload by the other person, `key recover` by who lost the key, `key veto` by who has it."""
    words = world.words(world.root / "ceremony" / "out")
    dist = world.project("shared")
    world.run("countermark", "publish", "--yes", *sorted(dist.iterdir()))
    world.login("lin", words, home="lin")
    lin = json.loads((next((world.root / "lin" / "countermark").rglob("session.json"))).read_text("utf-8"))
    assert "entry #" in world.run("countermark", "owner", "add", "shared", lin["account"], "--yes").out
    later = world.project("shared", "1.0.1")
    world.run("countermark", "sign", "--submit", *sorted(later.iterdir()))
    world.run(
        "uv", "publish", "--publish-url", f"{world.url}/legacy/", "--token", world.token(home="lin"),
        *sorted(later.glob("*.whl")),
    )  # fmt: skip
    assert "listed, ok" in world.run("countermark", "status", "--wait", *later.glob("*.whl")).out

    world.run("countermark", "key", "new", "--name", "found-again")
    asked = world.run("countermark", "key", "recover", "Shared", "--key", "found-again", "--yes")
    assert "in effect after seven days" in asked.out
    assert "veto is entry #" in world.run("countermark", "key", "veto", "shared", "--yes").out
    frozen = world.run("countermark", "owner", "remove", "shared", lin["account"], "--yes", expect=5)
    assert "frozen" in frozen.said


def test_a_key_of_the_ssh_agent_publishes(world: World) -> None:
    """Named, enrolled and used like any other key; without the agent nothing is signed."""
    dist = world.project("by-agent")
    folder = world.root / "ssh"
    folder.mkdir()
    with sshagent.running(folder) as session:
        session.key("lin", "-t", "ed25519")
        agent = {"SSH_AUTH_SOCK": session.environment["SSH_AUTH_SOCK"]}
        world.run("countermark", "key", "add", "ssh-agent", "--name", "agent", **agent)
        keyid = as_json(world.run("countermark", "key", "show", "agent", "--json"))["keyid"]
        world.run("countermark", "publish", "--yes", "--key", "agent", *sorted(dist.iterdir()), **agent)
    said = world.run("countermark", "verify", *dist.glob("*.whl")).out
    assert f"signed by key {keyid[:16]}" in said
    later = world.project("by-agent", "1.0.1")
    refused = world.run("countermark", "sign", "--key", "agent", *sorted(later.iterdir()), expect=2)
    assert "no ssh-agent is at hand" in refused.said


def test_a_bundle_outlives_the_registry(world: World, dist: Path) -> None:
    """Made while it ran, verified when it is gone, with three claims; swapped bytes are still refused."""
    world.run("countermark", "bundle", "make", dist / WHEEL)
    world.down()
    report = as_json(world.run("countermark", "bundle", "verify", "--json", dist / WHEEL))
    assert report["verified"] is True
    said = world.run("countermark", "bundle", "verify", dist / WHEEL).out
    assert "logged by" in said and "listed and in good standing" in said and "unknown since" in said
    swapped = world.root / "swapped"
    swapped.mkdir()
    (swapped / WHEEL).write_bytes(b"swapped")
    world.run("countermark", "bundle", "verify", swapped / WHEEL, expect=7)
