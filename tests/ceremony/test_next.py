"""Ceremonies after the first: what they change, in whose names, and what is refused."""

import copy
import json
from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Root

from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError
from countermark.trustfile import TrustFile
from countermark_ceremony import assemble as a
from countermark_ceremony import console, exchange, history, simulate
from countermark_ceremony.previous import join, split
from countermark_ceremony.tables import PlanError
from tests import ceremony_world as world
from tests.ceremony_world import LATER

REGISTRY, HOLDERS = world.Registry(), world.Holders()
FIRST = world.finished(REGISTRY, HOLDERS)
BASE = history.verify(FIRST)[0]
world.newcomer(HOLDERS, "eve")
world.newcomer(HOLDERS, "fay")
SWAP = ("ada", "ben", "eve")
SOON = world.NOW + timedelta(days=155)  # 25 days before the trust role expires


def document(names=None, **changes):
    return copy.deepcopy(world.next_document(BASE, HOLDERS, names, **changes))


def held(document, *who, files=FIRST, base=BASE, now=LATER):
    """The finished ceremony of a plan, and its chain."""
    prepared = world.next_prepared(base, document, now=now)
    done = world.next_finished(files, prepared, HOLDERS, *who, now=now)
    return done, history.verify(done)


ROTATED, CHAIN = held(document(SWAP), "ada", "ben", "eve")


def screen(document, holder):
    request = exchange.Request.parse(world.next_prepared(BASE, document).request(holder).format())
    return "\n".join(console.show_request(request))


def test_a_yearly_re_sign_keeps_every_key_and_moves_every_expiry():
    """The same keys and trust file, each role one version on; clients of root 1 follow."""
    _, chain = held(document(), "ada", "cleo")
    new = chain[-1]
    assert {metadata.signed.version for metadata in new.metadata.values()} == {2}
    assert all(new.role(name)[1] == BASE.role(name)[1] for name in new.metadata)
    assert new.trust_file == BASE.trust_file and new.accepted == BASE.accepted
    assert all(new.metadata[r].signed.expires > BASE.metadata[r].signed.expires for r in new.metadata)
    assert simulate.walk(chain)[0].startswith("a client that trusts root 1 reaches root 2")


def test_a_holder_is_replaced_by_the_thresholds_of_both_roots():
    """Cleo's keys leave all four roles, eve's come; the old root's threshold agreed."""
    new = CHAIN[-1]
    cleo, eve = (world.key_print(HOLDERS, name) for name in ("cleo-root", "eve-root"))
    assert cleo in BASE.role("root")[1] and cleo not in new.role("root")[1]
    assert eve in new.role("root")[1]
    old_result = BASE.root.get_verification_result(
        "root", new.metadata["root"].signed_bytes, new.metadata["root"].signatures
    )
    assert old_result.verified and len(old_result.signed) == 2


def test_the_threshold_of_the_old_root_is_not_enough_alone_nor_that_of_the_new():
    """Old holders alone, new holders alone: the table says who is missing in whose name."""
    swap = world.next_document(BASE, HOLDERS, SWAP)
    prepared = world.next_prepared(BASE, swap)
    with pytest.raises(SignatureError, match=r"2.root.json 1/2 by root 2: missing ben-root, eve-root"):
        a.assemble(prepared, world.responses(prepared, HOLDERS, "ada", "cleo"), now=LATER)
    with pytest.raises(SignatureError, match=r"2.root.json 1/2 by root 1: missing ben-root, cleo-root"):
        a.assemble(prepared, world.responses(prepared, HOLDERS, "ada", "eve"), now=LATER)


def test_a_threshold_rises():
    """Two of three become three of four."""
    wider = document(("ada", "ben", "cleo", "eve"), changes=["holders", "threshold"])
    for role in wider["roles"].values():
        role["threshold"] = 3
    _, chain = held(wider, "ada", "ben", "eve")
    assert chain[-1].root.roles["root"].threshold == 3 and len(chain[-1].role("trust")[1]) == 4


def test_the_trust_role_is_renewed_alone_and_names_the_transcript():
    """Half a year on, two trust keys are enough; root, targets and index stay byte for byte."""
    alone = document()
    alone["roles"] = {"trust": alone["roles"]["trust"]}
    alone["keys"] = {name: key for name, key in alone["keys"].items() if name.endswith("-trust")}
    done, chain = held(alone, "ben", "cleo")
    new = chain[-1]
    assert new.names == {**BASE.names, "trust": "2.trust.json"}
    assert done["1.root.json"] == FIRST["1.root.json"]
    stated = new.metadata["trust"].signed.unrecognized_fields["x-countermark-ceremony"]
    assert stated == {"transcript_sha256": new.transcript.digest}


def test_three_ceremonies_in_a_row_are_one_chain():
    """Each follows the one before; one folder carries them all."""
    third = world.next_document(CHAIN[-1], HOLDERS, ("ada", "eve", "fay"), date=LATER + timedelta(days=100))
    third["keys"] = {n: k for n, k in third["keys"].items() if not n.startswith("cleo")}
    later = LATER + timedelta(days=100)
    done, chain = held(third, "ada", "eve", "ben", files=ROTATED, base=CHAIN[-1], now=later)
    assert [each.root.version for each in chain] == [1, 2, 3]
    assert {"history/1/1.root.json", "history/2/2.root.json", "3.root.json"} <= set(done)
    assert len([line for line in simulate.walk(chain) if line.startswith("a client")]) == 3


def test_a_new_witness_policy_makes_trust_file_2_which_the_root_accepts():
    """All witnesses lost: the new policy is in force with the new root; the first stays unless withdrawn."""
    other = world.Registry(origin=REGISTRY.origin).witness.vkey.format()
    policy = REGISTRY.witness_policy.replace(REGISTRY.witness.vkey.format(), other)
    for withdraw in (False, True):
        plan = document(changes=["trust-file"])
        plan["trust_file"] = {"witness_policy": policy, "withdraw": withdraw}
        done, chain = held(plan, "ada", "ben")
        trust_file = chain[-1].trust_file
        assert trust_file.version == 2 and other in trust_file.witness_policy
        assert TrustFile.parse(done[f"targets/trust/{trust_file.digest}.trust.json"]) == trust_file
        kept = [] if withdraw else BASE.accepted
        assert chain[-1].accepted == [*kept, trust_file.digest]


def test_the_screen_shows_the_difference_and_warns():
    """What comes and goes, what it follows, in whose names it is signed, and what to ask about."""
    shown = screen(document(SWAP), "ada")
    eve, cleo = (world.key_print(HOLDERS, f"{name}-root") for name in ("eve", "cleo"))
    assert f"+   root key ecdsa-sha2-nistp256 {eve}" in shown
    assert f"-   root key ecdsa-sha2-nistp256 {cleo}" in shown
    assert "! root: 1 of 3 keys leave, 1 come" in shown
    assert "2 of the 3 keys of root 1" in shown and "2 of the 3 keys of root 2" in shown
    assert FIRST["root-words.txt"].decode().strip() in shown
    lower = document(("ada", "ben", "cleo", "eve"), changes=["holders", "threshold"])
    for role in lower["roles"].values():
        role["threshold"] = 3
    _, chain = held(lower, "ada", "ben", "eve")
    back = world.next_document(chain[-1], HOLDERS, ("ada", "ben", "cleo"), changes=["holders", "threshold"])
    back["date"] = LATER - timedelta(days=1) + timedelta(hours=1)
    back["keys"]["eve-root"] = {"holder": "eve", "public_key": HOLDERS.public("eve-root")}
    request = world.next_prepared(chain[-1], back).request("ada")
    said = [line for line in request.documents[0].says if line.startswith("!")]
    assert "! root: the threshold shrinks from 3 to 2" in said
    assert any("no later than before" in line for line in said)


def test_a_re_sign_says_only_versions_expiries_and_the_transcript():
    """Nothing else is marked: a holder sees at once that no key moves."""
    root = world.next_prepared(BASE, document()).request("ada").documents[0]
    marked = [line for line in root.says if line[0] != " "]
    assert len(marked) == 4 and all("version" in line or "transcript" in line for line in marked)


def _bad(name):
    plan = document(SWAP)
    roles, keys = plan["roles"], plan["keys"]
    if name == "unknown member":
        plan["note"] = "hurry"
    elif name == "other words":
        plan["previous"]["root_words"] = "zoo " * 11 + "zoo"
    elif name == "another registry":
        plan["origin"] = "other.example"
    elif name == "says re-sign":
        plan["changes"] = []
    elif name == "below the old threshold":
        for gone in ("ben-root", "cleo-root"):
            keys.pop(gone)
        roles["root"]["keys"] = ["ada-root", "eve-root", "fay-root"]
        keys["fay-root"] = {"holder": "fay", "public_key": HOLDERS.public("fay-root")}
    elif name == "two leave at once":
        roles["root"]["keys"] = ["ada-root", "eve-root", "fay-root"]
        keys["fay-root"] = {"holder": "fay", "public_key": HOLDERS.public("fay-root")}
    elif name == "no delegator":
        roles.pop("targets")
    elif name == "no root":
        roles.pop("root")
    elif name == "one holder twice":
        keys["eve-root"]["holder"] = "ada"
    elif name == "a key changes role":
        roles["root"]["keys"] = ["ada-root", "ben-root", "cleo-targets"]
        keys["cleo-targets"] = {"holder": "cleo", "public_key": HOLDERS.public("cleo-targets")}
        keys.pop("eve-root")
    elif name == "threshold of one":
        roles["trust"]["threshold"] = 1
    elif name == "too long":
        roles["root"]["days"] = 4000
    elif name == "in the past":
        plan["date"] = world.NOW - timedelta(days=30)
    elif name == "leaves an expired role":
        plan["roles"] = {name: roles[name] for name in ("root", "targets", "index")}
        plan["keys"] = {key: table for key, table in keys.items() if not key.endswith("-trust")}
    elif name == "leaves a role that soon expires":
        plan = document(date=SOON)
        plan["roles"] = {"root": plan["roles"]["root"]}
        plan["keys"] = {key: table for key, table in plan["keys"].items() if key.endswith("-root")}
    elif name == "before the next ceremony":
        plan["next_ceremony"] = LATER + timedelta(days=200)
    elif name == "in the future":
        plan["date"] = LATER + timedelta(days=30)
    elif name == "no quorum":
        plan["changes"] = ["holders", "trust-file"]
        logs = [line for line in REGISTRY.witness_policy.splitlines() if line.startswith("log")]
        plan["trust_file"] = {"witness_policy": "\n".join([*logs, "quorum none", ""]), "withdraw": False}
    elif name == "other log keys":
        plan["changes"] = ["holders", "trust-file"]
        plan["trust_file"] = {"witness_policy": world.Registry().witness_policy, "withdraw": False}
    elif name == "a policy that is none":
        plan["trust_file"] = {"witness_policy": "quorum moon\n", "withdraw": False}
    return plan


REFUSED = {
    "unknown member": "unknown member 'note'",
    "other words": "the plan follows a root with the words",
    "another registry": "the plan is for 'other.example'",
    "says re-sign": r"changes says \[\], the tables change \['holders'\]",
    "below the old threshold": "needs 2 of its keys to sign its successor, the plan describes 1",
    "two leave at once": "replace them in two ceremonies",
    "no delegator": "targets must be renewed as well",
    "no root": "renews root, or trust alone",
    "one holder twice": "a threshold counts people",
    "a key changes role": "'cleo-targets' is used twice",
    "threshold of one": "lets one person act alone",
    "too long": "4000 days",
    "leaves an expired role": "trust is not renewed and expired 2027-05-21",
    "leaves a role that soon expires": "trust is not renewed and expires 2027-05-21, less than 30 days away",
    "before the next ceremony": "trust: expires 2028-03-16, before the next ceremony on 2028-04-05",
    "in the past": "before the previous ceremony",
    "in the future": "lies in the future",
    "no quorum": "cannot follow a quorum",
    "other log keys": r"changes says \['holders', 'trust-file'\], the tables change .*'log-keys'",
    "a policy that is none": "the new trust file",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_is_not_sound_is_refused_before_a_key_is_touched(name):
    """Each refusal names what disagrees."""
    with pytest.raises(PlanError, match=REFUSED[name]):
        world.next_prepared(
            BASE, _bad(name), now=SOON if name == "leaves a role that soon expires" else LATER
        )


@pytest.mark.parametrize("member", ["previous", "previous_words", "says", "words", "needs"])
def test_a_request_that_lies_about_what_it_follows_is_refused(member):
    """Sentences and words are worked out again; another ground shows other words."""
    request = json.loads(world.next_prepared(BASE, document(SWAP)).request("ada").format())
    lied = request["documents"][0]
    lied[member] = [] if member in ("says", "needs") else lied["payload"]
    raw = json.dumps(request, indent=2, sort_keys=True).encode() + b"\n"
    if member == "needs":  # the sender's word; what counts is checked where signatures are put together
        assert exchange.Request.parse(raw).documents[0].needs == ()
        return
    with pytest.raises(CountermarkError):
        exchange.Request.parse(raw)


def test_answers_to_another_plan_or_by_a_stranger_are_refused():
    """A response is bound to its request: wrong plan, repeated, and nobody's."""
    prepared = world.next_prepared(BASE, document(SWAP))
    other = world.responses(world.next_prepared(BASE, document()), HOLDERS, "ada")
    with pytest.raises(EvidenceError, match="answers request"):
        a.assemble(prepared, other, now=LATER)
    ada = world.responses(prepared, HOLDERS, "ada")
    with pytest.raises(CountermarkError, match="two responses by 'ada'"):
        a.assemble(prepared, ada * 2, now=LATER)
    stranger = exchange.Response("mallory", ada[0].request_sha256, ada[0].signatures)
    with pytest.raises(CountermarkError, match="holds no key"):
        a.assemble(prepared, [stranger], now=LATER)


@pytest.mark.parametrize("number", range(len(ROTATED)))  # the names hold hashes, new in every process
def test_one_changed_byte_in_any_file_of_any_ceremony_is_found(number):
    """The whole history hangs together."""
    name = sorted(ROTATED)[number]
    middle = len(ROTATED[name]) // 2
    bad = bytearray(ROTATED[name])
    bad[middle] ^= 1
    with pytest.raises(CountermarkError):
        history.verify(ROTATED | {name: bytes(bad)})


def test_a_ceremony_left_out_or_put_in_the_other_order_is_found():
    """A history with a gap, or swapped, does not verify."""
    first, second = split(ROTATED)
    with pytest.raises(CountermarkError):
        history.verify(second)
    with pytest.raises(CountermarkError):
        history.verify(join([second, first]))
    gap = {name.replace("history/1/", "history/2/"): raw for name, raw in ROTATED.items()}
    with pytest.raises(MalformedError, match="one is missing"):
        history.verify(gap)


def test_a_root_that_the_old_holders_did_not_sign_leaves_clients_behind():
    """Planted: the old root's signatures taken away. Both the check and the simulated clients refuse."""
    root = Metadata[Root].from_bytes(ROTATED["2.root.json"])
    for keyid in list(root.signatures)[:2]:
        del root.signatures[keyid]
    forged = [CHAIN[0], copy.copy(CHAIN[1])]
    object.__setattr__(forged[1], "metadata", {**CHAIN[1].metadata, "root": root})
    with pytest.raises(EvidenceError, match="a client that trusts root 1 is left behind"):
        simulate.walk(forged)


def test_clients_are_warned_of_where_old_targets_do_not_verify_under_the_new_root():
    """When the signers of targets 1 leave, the seconds between root and timestamp are named."""
    prepared = world.prepared(REGISTRY, HOLDERS)
    files = a.assemble(prepared, world.responses(prepared, HOLDERS, "ada", "cleo", "dora"), now=world.NOW)
    base = history.verify(files)[0]
    _, chain = held(world.next_document(base, HOLDERS, SWAP), "ada", "ben", files=files, base=base)
    assert any(line.startswith("! 1.targets.json is not signed") for line in simulate.walk(chain))
    assert not any(line.startswith("!") for line in simulate.walk(CHAIN))
