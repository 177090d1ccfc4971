"""Rehearsal: a whole ceremony with stand-in keys, typed command by command, in a folder that is thrown away.

    $ countermark-ceremony keys new --name ada-root --token 'hsm:1?label=ada' --pin-file pin
    $ countermark-ceremony prepare plan.toml --out ceremony-1
    $ countermark-ceremony sign ceremony-1/requests/ada.request.json --pin-file pin --yes --out ada-1.response.json
    ...

Every step goes through the real commands, so a rehearsal shows the real screens and fails where a ceremony would.
Keys are made here, on SoftHSM tokens and in files; nothing is read but, for the next plan of a real registry, that
plan and the public folder it follows. The stand-in registry is called rehearsal.invalid and is a trial; its root says
`x-countermark-rehearsal`, which clients and registries refuse, and nothing of it is kept.

    first()        three of five holders, three with tokens; too few signatures are refused; then one holder is lost
    following()    the next plan of a real registry, with a stand-in for each of its keys
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from securesystemslib.signer import CryptoSigner

from countermark import keyfile, tokens
from countermark.errors import CountermarkError, SignatureError, UsageError
from countermark.statement import KeySigner, Statement, load_public_key, sign
from countermark.tlog.cosignature import Ed25519CosignatureSigner, MlDsaSigner
from countermark.tlog.note import Ed25519NoteSigner
from countermark.tlog.policy import Policy
from countermark.words import root_words
from countermark_ceremony import exchange, files, history
from countermark_ceremony.handover import ONLINE_ROLES, ROLE_KEYS, fingerprint, key_spki
from countermark_ceremony.nextplan import NextPlan
from countermark_ceremony.onlineroles import OnlineChange
from countermark_ceremony.payloads import REHEARSAL_ORIGIN
from countermark_ceremony.plan import FORMAT
from countermark_ceremony.previous import Previous
from countermark_ceremony.rotation import Step, present_roles
from countermark_ceremony.rotationtext import plan_text
from countermark_ceremony.softhsm import PIN, Drawer
from countermark_ceremony.tables import OFFLINE_ROLES, PlanKey, Role, Token

ORIGIN = REHEARSAL_ORIGIN
HOLDERS = {"ada": "hsm", "ben": "hsm", "cleo": "pkcs11ed", "dan": None, "eve": None}  # None: key files
THRESHOLD = 3
AUTHORITY = "authority-keeper"
INPUT = "ceremony-input.json"
BIT_LENGTH = 1  # of the stand-in registry
_DAYS = {"root": 365, "targets": 365, "index": 365, "trust": 180}
AGE = timedelta(days=60)  # of the stand-in for what is in force, so that expiries move as they will


@dataclass
class Stage:
    """The scratch folder, who types, and the stand-in keys made so far."""

    folder: Path  # the current folder of whoever types
    types: Callable[[Sequence[str]], None]
    say: Callable[[str], None]
    now: datetime
    random: Callable[[int], bytes]
    drawer: Drawer | None
    keys: dict[str, PlanKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files.write_new(self.folder / "pin", f"{PIN}\n".encode(), mode=0o600)
        files.write_new(self.folder / "pass", self.random(16).hex().encode() + b"\n", mode=0o600)

    def insert(self, holders: Collection[str]) -> None:
        """An empty token for each of them. All at once: who has looked for tokens does not see later ones."""
        for holder in sorted(holders):
            assert self.drawer is not None  # the caller opened one where any key is on a token
            self.drawer.token(holder)
            self.say(f"(inserted: an empty token labelled {holder!r}, PIN {PIN})")

    def key(self, name: str, holder: str, scheme: str | None) -> PlanKey:
        """A stand-in key: on its holder's token, or in a file."""
        if scheme is None:
            path = f"{name}.key.json"
            self.types(["keys", "new", "--name", name, "--out", path, "--passphrase-file", "pass"])
            made = PlanKey(name, holder, keyfile.KeyFile.parse(files.read(self.folder / path)).public_key)
        else:
            number = 1 + sum(key.holder == holder for key in self.keys.values())
            place = tokens.Place(scheme, number, holder)
            self.types(["keys", "new", "--name", name, "--token", place.uri, "--pin-file", "pin"])
            device = tokens.device(place)
            token = Token(device.vendor, device.serial, place.uri)
            made = PlanKey(name, holder, tokens.public_key(place), token)
        self.keys[name] = made
        return made

    def sign(self, ceremony: int, holder: str) -> str:
        """A holder's response file."""
        request = f"ceremony-{ceremony}/requests/{holder}.request.json"
        asked = exchange.Request.parse(files.read(self.folder / request))
        wanted = {print_ for document in asked.documents for _, print_ in document.keys}
        held = [
            word
            for key in self.keys.values()
            if key.fingerprint in wanted and key.token is None
            for word in ("--key", f"{key.name}.key.json")
        ]
        secrets = ["--passphrase-file", "pass", "--pin-file", "pin", "--yes"]
        response = f"{holder}-{ceremony}.response.json"
        self.types(["sign", request, *held, *secrets, "--out", response])
        return response

    def hold(self, number: int, plan: str, people: Sequence[str], *, too_few: Sequence[str] = ()) -> None:
        """One ceremony from its plan to simulated clients; `too_few` people are refused first."""
        self.types(["prepare", plan, "--out", f"ceremony-{number}"])
        responses = {holder: self.sign(number, holder) for holder in people}
        if too_few:
            short = [responses[holder] for holder in too_few]
            self.refused(
                ["assemble", f"ceremony-{number}", *short, "--out", f"root-{number}"], SignatureError
            )
        self.types(["assemble", f"ceremony-{number}", *responses.values(), "--out", f"root-{number}"])
        for command in ("verify", "simulate-client", "status"):
            self.types([command, f"root-{number}"])

    def refused(self, words: Sequence[str], kind: type[CountermarkError]) -> None:
        """A command that must be refused."""
        try:
            self.types(words)
        except kind as error:
            self.say(f"refused, as it must be: {error}")
            return
        raise UsageError(f"{shlex.join(words)} was not refused: do not hold a ceremony with this program")


def first(stage: Stage) -> None:
    """A first root by three of five, then the loss of one holder."""
    write(stage, INPUT, handover(log_policy=None)[0])
    stage.insert([holder for holder, scheme in HOLDERS.items() if scheme])
    for holder, scheme in HOLDERS.items():
        for role in ("root", "targets", "trust"):
            stage.key(f"{holder}-{role}", holder, scheme)
    roles = {name: Role(name, _keys(stage, HOLDERS, name), THRESHOLD, _DAYS[name]) for name in OFFLINE_ROLES}
    _first_plan(stage, roles, "rehearsal of a first root", stage.now)
    people = ("ada", "cleo", "dan", AUTHORITY.partition("-")[0])
    stage.hold(1, "plan-1.toml", people, too_few=people[:2])
    stage.say("now eve has lost her keys, and fay takes her place")
    added = []
    for role in ("root", "targets", "trust"):
        key = stage.key(f"fay-{role}", "fay", None)
        added += ["--add", f"{key.name}={key.name}.key.json"]
    stage.types(["rotate", "root-1", "--lost", "eve", *added, "--out", "plan-2.toml"])
    stage.hold(2, "plan-2.toml", ("ada", "ben", "fay", "dan"))


def on_tokens(plan: NextPlan, chain: Sequence[Previous]) -> bool:
    """Whether any key of a real plan, or of what it follows, is on a token."""
    in_force = [key for role in present_roles(chain).values() for key in role.keys]
    return any(key.token is not None for key in [*in_force, *plan.keys.values()])


def following(stage: Stage, plan: NextPlan, chain: Sequence[Previous]) -> None:
    """The ceremony of a real plan, with stand-ins for what is in force and for each key."""
    present = present_roles(chain)
    real = {key.fingerprint: key for role in present.values() for key in role.keys}
    real |= {key.fingerprint: key for key in plan.keys.values()}
    names = [key.name for key in real.values()]
    if len(set(names)) != len(names):
        raise UsageError(
            "two different keys have one name, in this plan and an earlier one: name the new one apart"
        )
    raw, logs = handover(log_policy=chain[-1].trust_file.witness_policy)
    write(stage, INPUT, raw)
    stage.insert({key.holder for key in real.values() if key.token is not None})
    stand_in = {print_: stage.key(key.name, key.holder, _scheme(key)) for print_, key in real.items()}

    def played(role: Role) -> Role:
        return Role(
            role.name, tuple(stand_in[key.fingerprint] for key in role.keys), role.threshold, role.days
        )

    before = {name: played(role) for name, role in present.items()}
    slack = timedelta(days=min(role.days for role in before.values()) - 31)
    _first_plan(
        stage,
        before,
        f"stand-in for root {chain[-1].root.version}",
        stage.now - max(timedelta(0), min(AGE, slack)),
    )
    people = {key.holder for role in before.values() for key in role.keys}
    stage.hold(1, "plan-1.toml", sorted(people | {AUTHORITY.partition("-")[0]}))
    stage.say(f"root 1 stands for root {chain[-1].root.version} of {plan.origin}; now its next plan")
    roles = {name: played(role) for name, role in plan.roles.items()}
    asked = tuple(stand_in[key.fingerprint] for key in plan.old_root_keys() if "root" in roles)
    step = Step(roles, before, asked, ())
    base = history.verify(files.read_folder(stage.folder / "root-1"))[-1]
    text = plan_text(
        base,
        step,
        folder="root-1",
        title=plan.title,
        operator=plan.operator,
        date=stage.now,
        changes=plan.changes,
    )
    text += _trust_tables(plan, chain[-1], logs) + _online_table(plan)
    write(stage, "plan-2.toml", text)
    stage.hold(2, "plan-2.toml", plan.holders)


def handover(*, log_policy: str | None) -> tuple[bytes, Mapping[str, str]]:
    """What a stand-in registry's `init` hands over, and by each real log key its stand-in.

    The witnesses of a real policy stay: a rehearsal asks none of them.
    """
    log = Ed25519NoteSigner(ORIGIN, ed25519.Ed25519PrivateKey.generate()).vkey
    log_pq = MlDsaSigner(ORIGIN, mldsa.MLDSA44PrivateKey.generate()).vkey
    vkeys = {key.type: key.format() for key in (log, log_pq)}
    logs: dict[str, str] = {}
    if log_policy is None:
        witness = Ed25519CosignatureSigner(
            "w1.invalid/w1", ed25519.Ed25519PrivateKey.generate()
        ).vkey.format()
        lines = [*(f"log {vkey}" for vkey in vkeys.values()), f"witness w1 {witness}", "quorum w1"]
        policy = "\n".join(lines) + "\n"
    else:
        for each in Policy.parse(log_policy).logs:
            logs[each.key.format()] = vkeys[each.key.type]
        policy = _with_logs(log_policy, logs)
    online = {role: CryptoSigner.generate_ed25519().public_key.to_dict() for role in ONLINE_ROLES}
    document = {
        "bit_length": BIT_LENGTH,
        "log_vkeys": list(vkeys.values()),
        "origin": ORIGIN,
        "role_keys": {role: _enrolment(role) for role in ROLE_KEYS},
        "tuf_keys": online,
        "witness_policy": policy,
    }
    return json.dumps(document, indent=1).encode(), logs


def _enrolment(role: str) -> object:
    signer = KeySigner(ed25519.Ed25519PrivateKey.generate())
    predicate = {
        "key": base64.b64encode(signer.public_key).decode(),
        "namespace": "",
        "origin": ORIGIN,
        "prev": None,
        "project": "",
        "scope": role,
        "threshold": 1,
        "valid_for": None,
    }
    return sign(Statement.about(f"key:{signer.keyid}", "key-enroll", predicate), signer).to_dict()


def _first_plan(stage: Stage, roles: Mapping[str, Role], title: str, date: datetime) -> None:
    authority = stage.key(AUTHORITY, AUTHORITY.partition("-")[0], None)
    raw = files.read(stage.folder / INPUT)
    lines = [
        f"format = {json.dumps(FORMAT)}",
        f"title = {json.dumps(title)}",
        'operator = "whoever rehearses"',
        f'origin = "{ORIGIN}"',
        "trial = true",
        f"date = {date:%Y-%m-%dT%H:%M:%SZ}",
        "",
        "[input]",
        f'file = "{INPUT}"',
        f'sha256 = "{fingerprint(raw)}"',
    ]
    used = {key.name: key for role in roles.values() for key in role.keys} | {AUTHORITY: authority}
    lines += [line for key in used.values() for line in key.table()]
    for role in roles.values():
        lines += role.table()
    lines += ["", "[authority]", f'key = "{AUTHORITY}"']
    lines += ["", "[client_policy]", 'mode = "enforce"', "min_tree_size = 0", "patterns = []", ""]
    write(stage, "plan-1.toml", "\n".join(lines).encode())


def _trust_tables(plan: NextPlan, before: Previous, logs: Mapping[str, str]) -> bytes:
    """What the plan says of the trust file, about the stand-in log."""
    if "trust-file" not in plan.changes:
        return b""
    policy, text = plan.trust_file.client_policy, ""
    if plan.trust_file.witness_policy != before.trust_file.witness_policy:
        withdraw = "false" if set(before.accepted) <= set(plan.accepted) else "true"
        said = json.dumps(_with_logs(plan.trust_file.witness_policy, logs))
        text += f"\n[trust_file]\nwitness_policy = {said}\nwithdraw = {withdraw}\n"
    patterns = ", ".join(
        f"{{ project = {json.dumps(each.project)}, mode = {json.dumps(each.mode)} }}"
        for each in policy.patterns
    )
    text += f'\n[client_policy]\nmode = "{policy.mode}"\nmin_tree_size = {policy.min_tree_size}\n'
    text += f"patterns = [{patterns}]\n"
    demands = policy.demands.as_written()
    if demands:
        text += "\n[client_policy.demands]\n"
        text += "".join(f"{name} = {json.dumps(value)}\n" for name, value in demands.items())
    return text.encode()


def _online_table(plan: NextPlan) -> bytes:
    """What the plan says of online roles, with stand-in keys and one bit more than the stand-in registry has."""
    keys = {role: CryptoSigner.generate_ed25519().public_key for role in plan.online.keys}
    change = OnlineChange(
        {role: key_spki(key) for role, key in keys.items()},
        None if plan.online.bit_length is None else BIT_LENGTH + 1,
    )
    return "".join(f"{line}\n" for line in change.table()).encode()


def _with_logs(policy: str, logs: Mapping[str, str]) -> str:
    for real, stand_in in logs.items():
        policy = policy.replace(real, stand_in)
    return policy


def _keys(stage: Stage, holders: Mapping[str, str | None], role: str) -> tuple[PlanKey, ...]:
    suffix = "targets" if role == "index" else role
    return tuple(stage.keys[f"{holder}-{suffix}"] for holder in holders)


def _scheme(key: PlanKey) -> str | None:
    """Where a stand-in lies: on a token, where the plan says that the key is on one."""
    if key.token is None:
        return None
    ed = isinstance(load_public_key(key.public_key), ed25519.Ed25519PublicKey)
    return tokens.ED25519 if ed else tokens.P256


def write(stage: Stage, name: str, content: bytes) -> None:
    """A file that people would bring or write by hand."""
    files.write_new(stage.folder / name, content)
    stage.say(f"(written for you: {name})")


def words_of(folder: Path) -> str:
    """The root words of a rehearsed folder."""
    return root_words(history.verify(files.read_folder(folder))[-1].metadata["root"].signed_bytes)
