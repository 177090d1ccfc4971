"""`pin update`, `policy simulate`, `lock annotate` and `lock check` as people type them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from countermark import commands_policy
from countermark.errors import UsageError
from countermark.pinning import annotated, with_pins
from countermark.statement import KeySigner
from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)
from tests.client.verify.test_signature import rotate
from tests.project import Project
from tests.simulator import Published, World, signing_key

OTHER = "00" * 32


def pylock(folder: Path, *files: Published) -> Path:
    """A pylock.toml as uv writes it, with a comment that somebody added."""
    text = 'lock-version = "1.0"\ncreated-by = "uv"\n'
    for file in files:
        text += (
            f'\n[[packages]]\nname = "{file.project}"  # kept\nversion = "{file.version}"\n'
            f'wheels = [{{ url = "https://registry.test/packages/{file.project}/{file.filename}", '
            f'hashes = {{ sha256 = "{file.sha256}" }} }}]\n'
        )
    path = folder / "pylock.toml"
    path.write_text(text)
    return path


def rotated(world: World, project: str = "acme-demo") -> tuple[str, str, int]:
    """The publisher's key is replaced by one that it vouches for; the next release is signed by that."""
    old, new = world.publisher, KeySigner(signing_key("publisher 2"))
    index = rotate(world, project, old, new=new, by=world.key_index(project))
    world.publisher = new
    world.publish(project, "2.0")
    return old.keyid, new.keyid, index


def test_a_pin_follows_a_rotation_with_the_entry_that_explains_it(desk: Desk) -> None:  # noqa: F811
    """Old -> new, signed by the old key, too; shown first, then written, then nothing is left to do."""
    policy = desk.folder / "countermark.toml"
    policy.write_text(f'# ours\n[pins]  # reviewed\nother = ["{OTHER}"]\n')
    desk.run("pin", "update", "acme-demo", "--write")
    assert tomllib.loads(policy.read_text())["pins"]["acme-demo"] == [desk.world.publisher.keyid]
    old, new, index = rotated(desk.world)
    said = desk.run("pin", "update", "acme-demo").splitlines()
    assert said[0] == f"acme-demo: {old} -> {new}"
    assert said[1].strip() == f"entry #{index} enrols {new}, signed by {old}, too" and len(said) == 2
    assert new not in policy.read_text()
    desk.run("verify", desk.wheel)  # the pin on the older key still holds
    desk.run("pin", "update", "acme-demo", "--write")
    text = policy.read_text()
    assert (
        text.startswith("# ours\n[pins]  # reviewed\n") and f'acme-demo = ["{new}"]' in text and OTHER in text
    )
    desk.run("pin", "update", "acme-demo")
    assert "every pin is on the key that signs now" in desk.err


def test_a_pin_file_is_written_where_its_link_leads_and_not_over_what_came_meanwhile(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rights and links stay; a file that somebody edited while the registry was asked is left alone, and said so."""
    real = desk.folder / "shared.toml"
    real.write_text("# ours\n")
    real.chmod(0o640)
    policy = desk.folder / "countermark.toml"
    policy.symlink_to(real)
    desk.run("pin", "update", "acme-demo", "--write")
    assert policy.is_symlink() and "acme-demo" in real.read_text() and real.stat().st_mode & 0o777 == 0o640
    real.write_text("# ours\n")

    def late(*given: Any) -> str:
        real.write_text("# somebody else's\n")
        return with_pins(*given)

    monkeypatch.setattr(commands_policy, "with_pins", late)
    desk.run("pin", "update", "acme-demo", "--write", expect=2)
    assert "was changed meanwhile" in desk.err and real.read_text() == "# somebody else's\n"


def test_a_pin_that_nothing_connects_is_not_moved(desk: Desk) -> None:  # noqa: F811
    """The registry's word alone moves no pin: exit 5, the file as it was; who has asked elsewhere says --replace."""
    policy = desk.folder / "countermark.toml"
    policy.write_text(f'[pins]\nacme-demo = ["{OTHER}"]\n')
    said = desk.run("pin", "update", "--write", expect=5)
    assert "on the registry's word" in said and OTHER in policy.read_text()
    assert "by other means than this registry" in desk.err
    desk.run("verify", desk.wheel, expect=5)
    assert "countermark pin update acme-demo" in desk.err
    desk.run("pin", "update", "--write", "--replace")
    desk.run("verify", desk.wheel)


@pytest.mark.parametrize(
    "text", ["pins = { acme = ['aa'] }\n", "pins.acme = ['aa']\n", "['pins']\nacme = ['aa']\n"]
)
def test_pins_that_are_spelled_otherwise_are_left_alone(text: str) -> None:
    """What we do not edit is said, with the line to write; the right edit is made or none."""
    try:
        edited = with_pins(text, Path("countermark.toml"), {"acme": ["bb"]})
    except UsageError as error:
        assert error.hint == 'write there: acme = ["bb"]'
    else:
        assert tomllib.loads(edited) == {"pins": {"acme": ["bb"]}}


def test_a_pin_is_moved_in_every_spelling_of_its_name() -> None:
    """A second line would leave the old key as good as the new one."""
    text = "[pins]\nAcme_Demo = ['aa']\n\"acme.demo\" = ['bb']\n\"acme-*\" = ['cc']\n"
    edited = tomllib.loads(with_pins(text, Path("countermark.toml"), {"acme-demo": ["dd"]}))
    assert edited == {"pins": {"Acme_Demo": ["dd"], "acme.demo": ["dd"], "acme-*": ["cc"]}}


def test_simulate_counts_what_enforcing_would_refuse(desk: Desk) -> None:  # noqa: F811
    """By reason, most first; nothing is changed, and the exit code is 0."""
    world = desk.world
    files = [desk.published, *(world.publish(name) for name in ("acme-b", "acme-c"))]
    old = Published("old", "1.0", "old-1.0-py3-none-any.whl", b"x", 0)
    (desk.folder / "countermark.toml").write_text('mode = "observe"\ncool-down = "3d"\ndeny = ["acme-c"]\n')
    (desk.folder / "project").mkdir()
    lock = Project(desk.folder / "project", world).uv_lock(*files, old)
    before = lock.read_bytes()
    said = desk.run("policy", "simulate", "--lock", lock).splitlines()
    heads = [line.split() for line in said if not line.startswith("     ") or line.split()[0].isdigit()]
    assert [tuple(head) for head in heads] == [("2", "cool-down"), ("1", "denied"), ("1", "no-entry")]
    assert "4 of 4 would be refused" in desk.err and lock.read_bytes() == before
    assert desk.json("policy", "simulate", "--lock", lock)["refused"] == 4
    (desk.folder / "countermark.toml").write_text("require-pins = true\n")
    reasons = desk.json("policy", "simulate", "--lock", lock)["reasons"]
    assert [(each["reason"], each["count"]) for each in reasons] == [("no-pin", 3), ("no-entry", 1)]


def test_a_lock_names_its_signers(desk: Desk) -> None:  # noqa: F811
    """annotate writes them, check compares; a lock that names another signer is refused, also by verify."""
    lock = pylock(desk.folder, desk.published, desk.world.publish("acme-b"))
    plain = lock.read_text()
    desk.run("lock", "check", lock, expect=5)
    assert "names no signer of acme-demo, acme-b" in desk.err
    shown = desk.run("lock", "annotate", lock)
    assert shown.count("+attestation-identities") == 2 and lock.read_text() == plain
    desk.run("lock", "annotate", lock, "--write")
    keyid = desk.world.publisher.keyid
    for package in tomllib.loads(lock.read_text())["packages"]:
        assert package["attestation-identities"] == [{"kind": "countermark", "key": keyid}]
    assert lock.read_text().count("# kept") == 2
    desk.run("lock", "check", lock)
    desk.run("lock", "annotate", lock)
    assert "says so already" in desk.err
    lock.write_text(lock.read_text().replace(keyid, OTHER, 1))
    desk.run("lock", "check", lock, expect=5)
    assert "not pinned for acme-demo" in desk.err
    desk.run("verify", lock, expect=5)
    desk.run("lock", "annotate", lock, "--write")
    desk.run("verify", lock)


def test_identities_of_others_stay() -> None:
    """A publisher that another tool wrote down is kept beside ours, and no signer removes ours."""
    text = (
        '[[packages]]\nname = "acme"\nattestation-identities = [\n  { kind = "GitHub", repository = "a/b" },\n]\n'
        '[[packages]]\nname = "other"\n[packages.vcs]\nurl = "x"\n'
    )
    once = annotated(text, Path("pylock.toml"), {"acme": frozenset({"aa"}), "other": frozenset({"bb"})})
    acme, other = tomllib.loads(once)["packages"]
    assert [item["kind"] for item in acme["attestation-identities"]] == ["GitHub", "countermark"]
    assert other["attestation-identities"][0]["key"] == "bb" and other["vcs"] == {"url": "x"}
    removed = annotated(once, Path("pylock.toml"), {})
    assert tomllib.loads(removed)["packages"] == tomllib.loads(text)["packages"]
