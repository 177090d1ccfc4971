"""`policy show`, `evidence list` and `trust show`: what applies here, what was kept, whose keys count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.client.cli.test_bundle_commands import Desk, desk  # noqa: F401  (a fixture)

HOME = 'mode = "warn"\ncool-down = "12h"\ndeny = ["evil-*"]\n'
PROJECT = (
    'mode = "enforce"\ncool-down = "3d"\nquorum = 1\n[pins]\nacme = ["{key}"]\n'
    '[[exception]]\nproject = "old"\nreason = "r"\napprover = "ops"\nexpires = 2020-01-31\n'
)


def policies(desk: Desk) -> None:  # noqa: F811
    (desk.folder / "home" / "policy.toml").write_text(HOME)
    (desk.folder / "countermark.toml").write_text(PROJECT.format(key="9f" * 32))


def found(lines: list[dict[str, Any]], what: str) -> list[tuple[Any, str, bool]]:
    return [(line["value"], line["from"], line["decides"]) for line in lines if line["what"] == what]


def test_every_value_says_which_of_three_places_it_is_from(desk: Desk) -> None:  # noqa: F811
    """And which of several decides: the strictest mode, the longest wait that is enforced."""
    policies(desk)
    told = desk.json("policy", "show")
    lines = told["asked"]
    central = desk.world.trust_file.client_policy.mode
    assert found(lines, "mode") == [
        (central, "the registry", central == "enforce"),
        ("warn", "this machine", False),
        ("enforce", "the project", True),
    ]
    assert found(lines, "cool-down") == [(43_200, "this machine", False), (259_200, "the project", True)]
    assert found(lines, "deny") == [(["evil-*"], "this machine", True)]
    assert found(lines, "pin") == [(f"acme = {'9f' * 32}", "the project", True)]
    ((exception, _, counts),) = found(lines, "exception")
    assert "approved by ops" in exception and not counts
    assert told["places"]["the project"] == str(desk.folder / "countermark.toml")
    assert told["places"]["the registry"].startswith(desk.world.base)
    said = desk.run("policy", "show")
    assert "cool-down    72h   (the project: enforced)" in said
    assert "deny         evil-*   (this machine: mode warn: it is said, and lets pass)" in said
    assert "ignored: expired" in said


def test_what_applies_to_one_project(desk: Desk) -> None:  # noqa: F811
    """Its modes, its pin, and that its name alone is refused."""
    policies(desk)
    of = desk.json("policy", "show", "acme", "Evil_One")["projects"]
    assert found(of["acme"], "pin") == [(["9f" * 32], "the project", True)]
    assert found(of["evil-one"], "name") == [('evil-one is denied (deny = "evil-*")', "a list", True)]
    assert [decides for _, _, decides in found(of["acme"], "mode")][-1] is True


def test_without_the_registry_the_rest_is_shown(desk: Desk) -> None:  # noqa: F811
    """Its part is not guessed: nothing is said in its name, and the exit code is the error's."""
    policies(desk)
    desk.world.down = lambda path: True
    told = desk.json("policy", "show", expect=3)
    assert told["places"]["the registry"].startswith("not known: ")
    assert {line["from"] for line in told["asked"]} == {"this machine", "the project"}


def test_saved_evidence_is_listed_with_the_next_step(desk: Desk) -> None:  # noqa: F811
    """Nothing first; then what a refusal kept, as its hint names it, and `evidence check` takes that name."""
    assert desk.run("evidence", "list") == "" and "no evidence was saved" in desk.err
    desk.wheel.write_bytes(b"swapped")
    desk.run("verify", desk.wheel, expect=7)
    assert "`countermark evidence check FILE` says whom it convinces" in desk.err
    (kept,) = desk.json("evidence", "list")
    assert f'evidence is in "{kept["file"]}"' in desk.err or Path(kept["file"]).is_file()
    assert kept["class"] == "observation" and kept["registry"] == desk.world.base
    assert "entry #" in " ".join(kept["sentences"])
    said = desk.run("evidence", "list")
    assert kept["file"] in said and "evidence check" in desk.err
    desk.run("evidence", "check", kept["file"])
    Path(kept["file"]).with_name("broken.json").write_text("{")
    assert len(desk.json("evidence", "list")) == 1 and "is passed over" in desk.err


def test_trust_show_tells_whose_signatures_count(desk: Desk) -> None:  # noqa: F811
    """The vkeys of the log and its witnesses, once something was verified; a cache that was changed tells nothing."""
    assert desk.json("trust", "show")["trust_file"] is None
    desk.run("trust", "show")
    assert "not known before something was verified" in desk.err
    desk.run("verify", desk.wheel)
    trust_file = desk.world.trust_file
    told = desk.json("trust", "show")["trust_file"]
    assert told["log_keys"] == [key.format() for key in trust_file.log_keys]
    assert told["witnesses"] == {w.name: w.key.format() for w in trust_file.policy.witnesses} != {}
    assert all(line in desk.run("trust", "show") for line in trust_file.witness_policy.splitlines())
    (cached,) = (desk.folder / "home").glob("registries/*/tuf/trust.file")
    cached.write_bytes(trust_file.format().replace(b'"version":1', b'"version":2'))
    assert desk.json("trust", "show")["trust_file"] is None


def test_a_pin_says_how_it_binds(desk: Desk) -> None:  # noqa: F811
    """Refused, or only said where its file tries it out; for all and for one project."""
    path = desk.folder / "countermark.toml"
    for mode, becomes in (
        ("", "one of these must have signed"),
        ('mode = "warn"\n', "one of these must have signed, mode warn: others are said, and let pass"),
    ):
        path.write_text(f'{mode}[pins]\nacme = ["{"9f" * 32}"]\n')
        told = desk.json("policy", "show", "acme")
        for lines in (told["asked"], told["projects"]["acme"]):
            assert [line["becomes"] for line in lines if line["what"] == "pin"] == [becomes]
