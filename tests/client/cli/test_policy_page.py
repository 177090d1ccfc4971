"""The page about policies: its example is a policy, whole and read as it is told there; its commands are commands."""

from __future__ import annotations

import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest

from countermark import cli, demands, policyfile
from countermark.clientpolicy import ClientPolicy, Mode
from countermark.demands import KNOWN, Demands, read_demands
from countermark.policyfile import load_policy

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "policy.md").read_text("utf-8")
KEY = "9f86d081" * 8
COMMAND = re.compile(r"^    (countermark .+)$", re.MULTILINE)


def loaded(folder: Path, text: str) -> ClientPolicy:
    """A shown policy, with whole keys in the place of those that are cut."""
    path = folder / "countermark.toml"
    path.write_text(re.sub(r"\"[0-9a-f]{8}\.\.\.\"", f'"{KEY}"', text), "utf-8")
    return load_policy(path)


def test_the_example_is_a_whole_policy(tmp_path: Path) -> None:
    """Every demand that there is stands in it, and means what is said beside it."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert tomllib.loads(example).keys() >= KNOWN | {"mode", "pins", "pattern", "exception"}
    policy, day = loaded(tmp_path, example), 86_400
    assert policy.mode is Mode.ENFORCE and policy.pins_for("acme-demo") == {KEY}
    assert policy.demands == Demands(
        max_age=day // 2, grace=0, quorum=2, cool_down=3 * day, not_flagged=True, refuse_yanked=True,
        allow=("acme-*", "numpy"), deny=("evil-*",), pins_required=True,
    )  # fmt: skip
    assert [each.approver for each in policy.exceptions] == ["ops"]


def test_the_examples_beside_the_code_are_policies(tmp_path: Path) -> None:
    """Those of policyfile.py and demands.py."""
    shown = re.search(r"\n\n(    mode = .*?)\n\nWhat", policyfile.__doc__ or "", re.DOTALL)
    assert shown is not None
    policy = loaded(tmp_path, textwrap.dedent(shown[1]))
    assert policy.pins_for("acme") == {KEY} and policy.log_only and policy.exceptions
    listed = re.search(r"\n\n(    max-age = .*?)\n\nEvery", demands.__doc__ or "", re.DOTALL)
    assert listed is not None and tomllib.loads(textwrap.dedent(listed[1])).keys() == KNOWN
    assert loaded(tmp_path, textwrap.dedent(listed[1])).demands.wants_entry


def test_the_registrys_demands_are_read_alike() -> None:
    """What the page shows for a ceremony's plan."""
    (example,) = re.findall(r"\n    (\[client_policy.demands\]\n(?:    .+\n)+)", PAGE)
    table = tomllib.loads(textwrap.dedent("    " + example))["client_policy"]["demands"]
    assert read_demands(table) == Demands(cool_down=86_400, deny=("acme-internal-*",))


@pytest.mark.parametrize("line", COMMAND.findall(PAGE))
def test_its_commands_are_commands(line: str) -> None:
    """Words and options as the program knows them."""
    words = shlex.split(line, comments=True)[1:]
    assert cli._parser(words[0]).parse_args(words).command.startswith("policy.")


def test_every_command_about_policy_is_shown() -> None:
    """A command that the page leaves out is one that nobody finds."""
    shown = {" ".join(shlex.split(line)[1:3]) for line in COMMAND.findall(PAGE)}
    assert shown == {"pin update", "policy show", "policy simulate", "lock annotate", "lock check"}
