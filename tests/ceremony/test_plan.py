"""Plans: what is refused before a key is touched."""

import copy
import hashlib
import json
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from countermark.errors import CountermarkError, EvidenceError, MalformedError, UsageError
from countermark_ceremony.plan import input_name, parse_plan
from countermark_ceremony.tables import PlanError
from tests.ceremony_world import NOW, Holders, Registry, plan_document, to_toml

REGISTRY, HOLDERS = Registry(), Holders()
INPUT = REGISTRY.input_raw()
PLAN = plan_document(REGISTRY, HOLDERS, INPUT)


def parse(document, input_raw=INPUT):
    return parse_plan(to_toml(document), input_raw, now=NOW)


def token(uri):
    return {"vendor": "v", "serial": "s", "uri": uri}


def changed(change):
    document = copy.deepcopy(PLAN)
    change(document)
    return document


def test_a_good_plan_is_read_whole():
    """Roles, holders, expiries and the handed-over keys are all there."""
    plan = parse(PLAN)
    assert plan.holders == ("ada", "ben", "cleo", "dora")
    assert plan.expires("trust") == NOW + timedelta(days=180)
    assert plan.handover.bit_length == REGISTRY.bit_length
    assert input_name(to_toml(PLAN)) == "ceremony-input.json"


REFUSALS = {
    "a threshold of one": (lambda d: d["roles"]["root"].update(threshold=1), "lets one person act alone"),
    "a threshold of zero": (lambda d: d["roles"]["trust"].update(threshold=0), "lets one person act alone"),
    "no key to spare": (lambda d: d["roles"]["root"].update(threshold=3), "survive the loss of one"),
    "a holder twice in a role": (
        lambda d: d["keys"]["ben-root"].update(holder="ada"),
        "one holder has two of its keys",
    ),
    "a key twice in a role": (
        lambda d: d["roles"]["root"]["keys"].__setitem__(1, "ada-root"),
        "one holder has two of its keys",
    ),
    "a root key in targets": (
        lambda d: d["roles"]["targets"]["keys"].__setitem__(0, "ada-root"),
        "is used twice",
    ),
    "a trust key in targets": (
        lambda d: d["roles"]["targets"]["keys"].__setitem__(0, "ada-trust"),
        "is used twice",
    ),
    "an authority key in a role": (
        lambda d: d["authority"].update(key="ada-root"),
        "'ada-root' is used twice: root and authority",
    ),
    "one key under two names": (
        lambda d: d["keys"]["ada-trust"].update(public_key=d["keys"]["ada-root"]["public_key"]),
        "are the same key",
    ),
    "a key without use": (
        lambda d: d["keys"].update(spare={"holder": "eve", "public_key": HOLDERS.public("ada-root")}),
        "is used nowhere",
    ),
    "an expiry too near": (lambda d: d["roles"]["trust"].update(days=29), "less than 30 days away"),
    "an expiry in the past": (lambda d: d["roles"]["root"].update(days=0), "less than 30 days away"),
    "an expiry too far": (lambda d: d["roles"]["root"].update(days=800), "at most 400"),
    "a trust expiry too far": (lambda d: d["roles"]["trust"].update(days=365), "at most 200"),
    "an old date": (lambda d: d.update(date=NOW - timedelta(days=400)), "less than 30 days away"),
    "a future date": (lambda d: d.update(date=NOW + timedelta(days=3)), "lies in the future"),
    "a date that is not UTC": (
        lambda d: d.update(date=NOW.astimezone(timezone(timedelta(hours=1)))),
        "is not UTC",
    ),
    "a date without zone": (lambda d: d.update(date=NOW.replace(tzinfo=None)), "is not UTC"),
    "a date that is a text": (lambda d: d.update(date="2026-11-22T12:00:00Z"), "not a datetime"),
    "another origin": (lambda d: d.update(origin="other.example"), "the input for 'registry.example'"),
    "another format": (lambda d: d.update(format="countermark-ceremony-plan/v2"), "this program reads"),
    "another input": (lambda d: d["input"].update(sha256="00" * 32), "the plan says 0000"),
    "an unknown key name": (lambda d: d["roles"]["root"]["keys"].__setitem__(0, "eve"), "does not describe"),
    "an unknown role": (lambda d: d["roles"].update(snapshot={}), "unknown member 'snapshot'"),
    "an unknown member of the plan": (lambda d: d.update(thresold=2), "unknown member 'thresold'"),
    "an unknown member of a role": (
        lambda d: d["roles"]["root"].update(expires="never"),
        "unknown member 'expires'",
    ),
    "a missing section": (lambda d: d.pop("authority"), "has no 'authority'"),
    "a missing role": (lambda d: d["roles"].pop("trust"), "has no 'trust'"),
    "a boolean threshold": (lambda d: d["roles"]["root"].update(threshold=True), "not a int"),
    "a bad mode": (lambda d: d["client_policy"].update(mode="maybe"), "none of observe, warn, enforce"),
    "an unknown demand": (
        lambda d: d["client_policy"].update(demands={"cold-down": "3d"}),
        "unknown member 'cold-down'",
    ),
    "a demand without a unit": (
        lambda d: d["client_policy"].update(demands={"cool-down": 3}),
        "no span of time",
    ),
    "a negative floor": (lambda d: d["client_policy"].update(min_tree_size=-1), "min_tree_size is -1"),
    "a path as input": (lambda d: d["input"].update(file="../x.json"), "beside the plan"),
    "a key that is no key": (
        lambda d: d["keys"]["ada-root"].update(public_key="AAAA"),
        "neither ECDSA P-256 nor",
    ),
    "a key that is no base64": (lambda d: d["keys"]["ada-root"].update(public_key="!"), "not a base64 SPKI"),
    "a token that says more": (
        lambda d: d["keys"]["ada-root"].update(token={"vendor": "v", "serial": "s", "pin": "1"}),
        "unknown member 'pin'",
    ),
    "a place that is no token's": (
        lambda d: d["keys"]["ada-root"].update(token=token("file:ada")),
        "names no key on a token",
    ),
    "a place of another kind of key": (
        lambda d: d["keys"]["ada-root"].update(token=token("pkcs11ed:2?label=ada")),
        "is of another kind than its public_key",
    ),
    "two keys at one place": (
        lambda d: [d["keys"][f"ada-{r}"].update(token=token("hsm:2?label=ada")) for r in ("root", "trust")],
        "lie at one place",
    ),
    "a next ceremony after an expiry": (
        lambda d: d.update(next_ceremony=NOW + timedelta(days=181)),
        "trust: expires 2027-05-21, before the next ceremony on 2027-05-22",
    ),
    "a next ceremony that is no moment": (lambda d: d.update(next_ceremony="in May"), "not a datetime"),
    "a holder with a slash": (lambda d: d["keys"]["ada-root"].update(holder="../ada"), "letters, digits"),
    "keys that are no table": (lambda d: d.update(keys=[]), "not a dict"),
    "a number as title": (lambda d: d.update(title=7), "not a str"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_a_plan_is_refused_for(why):
    """Each refusal names its reason; nothing but the plan and the input was read."""
    change, message = REFUSALS[why]
    with pytest.raises(UsageError, match=message):
        parse(changed(change))


def test_all_reasons_are_said_at_once():
    """A person who fixes a plan wants to fix it once."""

    def change(document):
        document["roles"]["root"]["threshold"] = 1
        document["roles"]["trust"]["days"] = 5
        document["client_policy"]["min_tree_size"] = 0

    with pytest.raises(PlanError) as caught:
        parse(changed(change))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"[[[", b"x = 1", b"a" * 300_000])
def test_what_is_no_plan_is_refused(raw):
    """Empty, wrongly encoded, broken, foreign and oversized files."""
    with pytest.raises(PlanError):
        parse_plan(raw, INPUT, now=NOW)


def with_input(change):
    registry = Registry()
    document = registry.document()
    change(document, registry)
    raw = json.dumps(document).encode()
    return parse(plan_document(registry, HOLDERS, raw), raw)


def swap_first(text):
    return ("A" if text[0] != "A" else "B") + text[1:]


INPUT_REFUSALS = {
    "a role key's statement for another role": (
        lambda d, r: d["role_keys"].update(scanner=r.enrolment("registry")),
        "scope 'registry'",
    ),
    "a role key's statement for another log": (
        lambda d, r: d["role_keys"].update(scanner=r.enrolment("scanner", origin="other.example")),
        "other.example",
    ),
    "a role key that did not sign itself": (
        lambda d, r: d["role_keys"]["scanner"]["signatures"][0].update(
            sig=d["role_keys"]["registry"]["signatures"][0]["sig"]
        ),
        "does not verify",
    ),
    "a missing role key": (lambda d, r: d["role_keys"].pop("scanner"), "role_keys are those of"),
    "two online roles with one key": (
        lambda d, r: d["tuf_keys"].update(snapshot=d["tuf_keys"]["bins"]),
        "two online roles share a key",
    ),
    "a missing log key": (lambda d, r: d["log_vkeys"].pop(), "are not the log lines"),
    "a log without post-quantum key": (
        lambda d, r: d.update(
            log_vkeys=d["log_vkeys"][:1],
            witness_policy="".join(
                line for line in d["witness_policy"].splitlines(True) if r.log_pq.vkey.format() not in line
            ),
        ),
        "ML-DSA-44",
    ),
    "an unknown member": (lambda d, r: d.update(more=1), "members are"),
    "a bit length of 0": (lambda d, r: d.update(bit_length=0), "bit_length"),
    "a bit length of 20": (lambda d, r: d.update(bit_length=20), "bit_length"),
    "a TUF key of an unknown kind": (
        lambda d, r: d["tuf_keys"]["bins"].update(scheme="rot13"),
        "not in the form",
    ),
    "a TUF key with extra members": (lambda d, r: d["tuf_keys"]["bins"].update(x=1), "unknown members"),
    "a broken policy": (lambda d, r: d.update(witness_policy="quorum nobody\n"), "policy"),
}


@pytest.mark.parametrize("why", INPUT_REFUSALS)
def test_an_input_is_refused_for(why):
    """What the registry hands over is checked before anything is made of it."""
    change, message = INPUT_REFUSALS[why]
    with pytest.raises(EvidenceError, match=message):
        with_input(change)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"\xff", b"{" * 9000, b" " * 300_000])
def test_what_is_no_input_is_malformed(raw):
    """One kind of error for every broken file, even with the right digest in the plan."""
    document = plan_document(REGISTRY, HOLDERS, raw)
    with pytest.raises(MalformedError):
        parse(document, raw)


def test_an_offline_key_that_is_online_too_is_refused():
    """A ceremony key on a networked machine is no ceremony key."""
    registry = Registry()
    from countermark.statement import KeySigner

    registry.roles["scanner"] = KeySigner(HOLDERS.keys["ada-root"])
    raw = registry.input_raw()
    with pytest.raises(PlanError, match="'ada-root' is online too, as log role scanner"):
        parse(plan_document(registry, HOLDERS, raw), raw)


def test_quorum_none_is_for_test_origins_only():
    """A real registry has a witness from its first checkpoint."""

    def unwitnessed(registry):
        document = registry.document()
        document["witness_policy"] = registry.witness_policy.replace("quorum w1", "quorum none")
        return json.dumps(document).encode()

    for origin in ("registry.countermark.dev", "registry.countermark.dev/x.test"):
        real = Registry(origin=origin)
        raw = unwitnessed(real)
        with pytest.raises(PlanError, match="`quorum none` is only for origins ending in"):
            parse(plan_document(real, HOLDERS, raw), raw)
    raw = unwitnessed(REGISTRY)
    assert parse(plan_document(REGISTRY, HOLDERS, raw), raw).origin == "registry.example"


def test_every_truncation_of_a_plan_is_refused_by_one_of_our_errors():
    """A plan torn anywhere never becomes a smaller plan, and never a traceback."""
    raw = to_toml(PLAN)
    for end in range(0, len(raw) - 1, 97):
        with pytest.raises(CountermarkError):
            parse_plan(raw[:end], INPUT, now=NOW)


TEMPLATE = Path(__file__).resolve().parents[2] / "keys-ceremony" / "plans" / "first-root.toml"


def test_the_template_becomes_a_plan_when_its_blanks_are_filled():
    """What people start from is accepted, and is refused as long as a blank is left."""
    text = TEMPLATE.read_text("utf-8")
    with pytest.raises(PlanError):
        parse_plan(text.encode(), INPUT, now=NOW)
    text = text.replace("2026-01-31T12:00:00Z", "2026-11-22T12:00:00Z")
    text = text.replace("<origin>", REGISTRY.origin)
    text = text.replace("<sha256sum of that file>", hashlib.sha256(INPUT).hexdigest())
    for name in HOLDERS.keys:
        text = text.replace(f"<{name}>", HOLDERS.public(name))
    assert parse_plan(text.encode(), INPUT, now=NOW).holders == ("ada", "ben", "cleo", "dora")
