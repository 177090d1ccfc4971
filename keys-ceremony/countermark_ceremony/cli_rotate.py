"""countermark-ceremony rotate: arguments and printing only.

countermark-ceremony rotate root-1 --remove cleo --add eve-root=eve-root.key.json ... --out plan-2.toml
countermark-ceremony rotate root-1 --lost ben-root --add ben-root-2=hsm:4?label=ben --out plan-2.toml
countermark-ceremony rotate root-1 --threshold root=3 --out plan-2.toml
countermark-ceremony rotate root-1 --online timestamp=MCowBQYDK2VwAyEA... --out plan-2.toml
countermark-ceremony rotate root-1 --bit-length 14 --out plan-2.toml
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from countermark import keyfile, tokens
from countermark.errors import CountermarkError, UsageError
from countermark.tlog.policy import Policy
from countermark_ceremony import cli_keys, console, files, history, rotation, rotationtext
from countermark_ceremony.handover import ONLINE_ROLES
from countermark_ceremony.nextplan import parse_next
from countermark_ceremony.onlineroles import RENEWS, OnlineChange, read_public
from countermark_ceremony.plan import utc_now
from countermark_ceremony.previous import PLAN, Previous
from countermark_ceremony.tables import OFFLINE_ROLES, PlanKey, Token, read_toml


@click.command()
@click.argument("folder", metavar="OUT", type=cli_keys.PATH)
@click.option("--lost", metavar="NAME", multiple=True, help="A holder or a key that can't or must not sign.")
@click.option("--remove", "removed", metavar="NAME", multiple=True, help="A holder or a key that leaves.")
@click.option(
    "--add", "added", metavar="NAME=KEY", multiple=True, help="A key that comes: file or token URI."
)
@click.option("--threshold", "thresholds", metavar="[ROLE=]N", multiple=True, help="Another threshold.")
@click.option("--witness-policy", type=cli_keys.PATH, help="Another witness policy, in force at once.")
@click.option("--withdraw", is_flag=True, help="With it: the trust files before are not accepted any more.")
@click.option(
    "--online",
    "online",
    metavar="ROLE=PUBLIC",
    multiple=True,
    help="An online key that follows the present one.",
)
@click.option("--bit-length", type=int, help="2^N bins, more than now.")
@click.option("--operator", help="Who runs the machine; as last time when absent.")
@click.option(
    "--date",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="The day of the ceremony, in UTC; today when absent.",
)
@click.option("--out", type=cli_keys.PATH, required=True, help="The plan to write, beside OUT.")
@click.option("--json", "as_json", is_flag=True, help="The explanation as one JSON document.")
def rotate(
    *,
    folder: Path,
    lost: tuple[str, ...],
    removed: tuple[str, ...],
    added: tuple[str, ...],
    thresholds: tuple[str, ...],
    witness_policy: Path | None,
    withdraw: bool,
    online: tuple[str, ...],
    bit_length: int | None,
    operator: str | None,
    date: datetime | None,
    out: Path,
    as_json: bool,
) -> None:
    """Plan the next ceremony: who leaves, who comes, who must sign. OUT is the finished one before it."""
    files.check_absent(out)
    if out.resolve().parent != folder.resolve().parent:
        raise UsageError(f'the plan goes beside "{folder}", which it follows', hint="choose another --out")
    chain = history.verify(files.read_folder(folder))
    now = utc_now() if date is None else date.replace(tzinfo=UTC)
    keys = tuple(_key(text) for text in added)
    event = rotation.Event(lost, removed, keys, _thresholds(thresholds))
    trust = _trust_file(witness_policy, withdraw=withdraw)
    change = _online(online, bit_length)
    also = {*(("root", "trust") if trust else ()), *(RENEWS[said] for said in change.said)}
    found = rotation.plan_rotation(chain, event, now=now, also=also)
    raw = rotationtext.plan_text(
        chain[-1],
        found.steps[0],
        folder=folder.resolve().name,
        title=change.title or rotationtext.title_of(found.steps[0]),
        operator=operator or _operator(chain[-1]),
        date=now.replace(microsecond=0),
        changes=[*found.steps[0].changes, *_trust_changes(witness_policy, chain[-1]), *change.changes()],
    )
    raw += trust + "".join(f"{line}\n" for line in change.table()).encode()
    parse_next(raw, chain[-1], now=now)  # what `prepare` would refuse is refused here, and nothing is written
    said = rotationtext.lines(chain[-1], found)
    following = rotationtext.following(f"root-{chain[-1].number + 1}", found)
    files.write_new(out, raw)
    if as_json:
        print(rotationtext.as_json(chain[-1], found))
    else:
        console.show_lines(said + following)
    console.say(f"wrote {out}; let everybody read it, then: countermark-ceremony prepare {out} --out DIR")


def _key(text: str) -> PlanKey:
    """The key that `--add NAME=KEY` brings: its public half, from a key file or a token, without any secret."""
    name, equals, source = text.partition("=")
    if not equals or not source:
        raise UsageError(
            f"--add {text!r} is not NAME=KEY", hint="for example --add eve-root=eve-root.key.json"
        )
    holder, _ = rotation.role_of(name)
    if source.startswith((f"{tokens.P256}:", f"{tokens.ED25519}:")):
        place = tokens.Place.parse(source)
        device = tokens.device(place)
        token = Token(device.vendor, device.serial, place.uri)
        return PlanKey(name, holder, tokens.public_key(place), token)
    return PlanKey(name, holder, keyfile.KeyFile.parse(files.read(Path(source))).public_key)


def _online(given: tuple[str, ...], bit_length: int | None) -> OnlineChange:
    """The plan's table about online roles."""
    keys = {}
    for text in given:
        role, _, public = text.partition("=")
        if role not in ONLINE_ROLES:
            raise UsageError(f"--online {text!r} is not ROLE=PUBLIC of {', '.join(ONLINE_ROLES)}")
        keys[role] = read_public(role, public)
    return OnlineChange(keys, bit_length)


def _trust_file(path: Path | None, *, withdraw: bool) -> bytes:
    """The plan's table about another trust file; nothing where no policy is given."""
    if path is None:
        if withdraw:
            raise UsageError("--withdraw goes with --witness-policy: something must take the old one's place")
        return b""
    policy = files.read(path)
    if b"'" in policy:  # it would end the text in the plan; no policy holds one
        raise UsageError(f'"{path}" is no witness policy')
    said = b"true" if withdraw else b"false"
    return b"\n[trust_file]\nwitness_policy = '''\n" + policy + b"'''\nwithdraw = " + said + b"\n"


def _trust_changes(path: Path | None, newest: Previous) -> list[str]:
    """As a plan says it: another trust file, and whether the log gets other keys with it."""
    if path is None:
        return []
    old = newest.trust_file
    try:
        keys = Policy.parse(files.read(path).decode("utf-8", "replace")).log_keys(old.origin)
    except CountermarkError:
        return ["trust-file"]  # the plan will be refused, with the reason
    return ["trust-file", *(["log-keys"] if set(keys) != set(old.log_keys) else [])]


def _thresholds(given: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in given:
        role, equals, number = text.rpartition("=")
        if not number.isdecimal() or (equals and role not in OFFLINE_ROLES):
            raise UsageError(f"--threshold {text!r} is neither N nor ROLE=N of {', '.join(OFFLINE_ROLES)}")
        found |= dict.fromkeys([role] if equals else OFFLINE_ROLES, int(number))
    return found


def _operator(newest: Previous) -> str:
    """Who ran the machine the last time."""
    if PLAN not in newest.files:
        raise UsageError("the folder holds no plan that says who runs the machine", hint="--operator NAME")
    return str(read_toml(newest.files[PLAN])["operator"])
