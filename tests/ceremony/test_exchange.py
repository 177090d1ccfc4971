"""Requests, responses and the finished ceremony: forged, swapped, short and torn ones are refused."""

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root, Targets

from countermark.errors import CountermarkError, EvidenceError, MalformedError, SignatureError, UsageError
from countermark.statement import KeySigner
from countermark.trustfile import TARGET_PATH, TrustFile
from countermark.words import root_words
from countermark_ceremony import assemble as a
from countermark_ceremony import console, exchange
from countermark_ceremony.transcript import Transcript
from tests import ceremony_world as world

REGISTRY, HOLDERS = world.Registry(), world.Holders()
PREPARED = world.prepared(REGISTRY, HOLDERS)
RESPONSES = world.responses(PREPARED, HOLDERS)
FILES = a.assemble(PREPARED, RESPONSES, now=world.NOW)


def response_of(holder):
    return next(response for response in RESPONSES if response.holder == holder)


def assemble(responses):
    return a.assemble(PREPARED, responses, now=world.NOW)


def test_a_finished_ceremony_verifies_and_says_what_it_is():
    """Roots, delegations, trust file, transcript and role keys hang together."""
    found = a.verify_first(FILES, now=world.NOW)
    assert (found.origin, found.trial) == (REGISTRY.origin, False)
    root = Metadata[Root].from_bytes(FILES["1.root.json"])
    assert found.root_words == root_words(root.signed_bytes) == FILES["root-words.txt"].decode().strip()
    assert "x-countermark-trial" not in root.signed.unrecognized_fields
    targets = Metadata[Targets].from_bytes(FILES["1.targets.json"]).signed
    assert list(targets.delegations.roles) == ["trust", "index"]
    assert all(role.terminating for role in targets.delegations.roles.values())
    trust = Metadata[Targets].from_bytes(FILES["1.trust.json"]).signed
    digest = trust.targets[TARGET_PATH].hashes["sha256"]
    trust_file = TrustFile.parse(FILES[f"targets/trust/{digest}.trust.json"])
    assert root.signed.unrecognized_fields["x-countermark-trust"] == [digest] == [trust_file.digest]
    assert {key.format() for key in trust_file.log_keys} == set(REGISTRY.document()["log_vkeys"])


def test_two_of_three_are_enough_whoever_is_missing():
    """Any one holder may stay away; the authority's holder may not."""
    for missing in ("ada", "ben", "cleo"):
        files = assemble([r for r in RESPONSES if r.holder != missing])
        assert a.verify_first(files, now=world.NOW)
    with pytest.raises(SignatureError, match=r"role-keys/registry 0/1: missing dora-authority"):
        assemble([r for r in RESPONSES if r.holder != "dora"])


def test_one_of_three_is_too_few_and_the_missing_are_named():
    """The refusal says which documents lack whom."""
    with pytest.raises(SignatureError, match=r"1.root.json 1/2: missing ben-root, cleo-root"):
        assemble([response_of("ada"), response_of("dora")])


def test_a_trial_is_marked_in_the_root_and_on_the_screen():
    """Nobody can mistake it."""
    files = world.finished(REGISTRY, HOLDERS, trial=True)
    assert a.verify_first(files, now=world.NOW).trial
    root = Metadata[Root].from_bytes(files["1.root.json"]).signed
    assert root.unrecognized_fields["x-countermark-trial"] is True
    screen = "\n".join(console.show_request(world.prepared(REGISTRY, HOLDERS, trial=True).request("ada")))
    assert "THIS IS A TRIAL" in screen and "+ TRIAL:" in screen


def test_the_screen_shows_words_groups_and_fingerprints_of_every_key():
    """What a holder compares is on the screen, worked out from the payload."""
    screen = "\n".join(console.show_request(PREPARED.request("ada")))
    root = PREPARED.payloads.named("1.root.json")
    assert root_words(root.payload) in screen
    for role in PREPARED.plan.roles.values():
        assert all(key.fingerprint in screen for key in role.keys)
    for print_ in PREPARED.plan.handover.online_fingerprints():
        dora = "\n".join(console.show_request(PREPARED.request("dora")))
        assert (
            print_ in screen
            or print_ in dora
            or "bins" in PREPARED.plan.handover.online_fingerprints()[print_]
        )


def test_payloads_are_a_function_of_plan_and_transcript():
    """Anybody who has both can make the same bytes."""
    again = a.Prepared.load(PREPARED.plan, PREPARED.transcript.format())
    assert again.payloads == PREPARED.payloads
    assert again.request("ada").format() == PREPARED.request("ada").format()


def test_a_transcript_of_another_ceremony_is_refused():
    """Plan and transcript are bound to each other."""
    other = world.Holders()
    with pytest.raises(EvidenceError, match="another plan"):
        a.Prepared.load(PREPARED.plan, world.prepared(REGISTRY, other).transcript.format())


def mutated_request(change):
    document = json.loads(PREPARED.request("ada").format())
    change(document)
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


LIES = {
    "other words": lambda d: d["documents"][0].update(words=root_words(b"x")),
    "other sentences": lambda d: d["documents"][0]["says"].pop(),
    "another digest": lambda d: d["documents"][0].update(sha256="00" * 32),
    "no trial mark": lambda d: d.update(trial=1),
    "another member": lambda d: d.update(note="please hurry"),
    "another trust text": lambda d: d["trust_file_says"].pop(),
    "a previous root": lambda d: d.update(previous="AAAA"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_request_that_lies_about_its_payload_is_refused(lie):
    """Holders see what the bytes say."""
    with pytest.raises(EvidenceError):
        exchange.Request.parse(mutated_request(LIES[lie]))


def test_a_request_with_another_trust_file_is_refused():
    """The trust file on the screen is the one the metadata commits to."""
    other = world.prepared(world.Registry(), HOLDERS).request("ada")
    from countermark_ceremony.payloads import describe_trust_file

    def change(document):
        document["trust_file"] = base64.b64encode(other.trust_file.format()).decode()
        document["trust_file_says"] = describe_trust_file(other.trust_file)

    with pytest.raises(EvidenceError, match="does not name the trust file"):
        exchange.Request.parse(mutated_request(change))


def test_a_request_with_an_unexpected_document_is_refused():
    """Only what a ceremony signs is ever signed."""
    with pytest.raises(MalformedError, match="none that a ceremony signs"):
        exchange.Request.parse(mutated_request(lambda d: d["documents"][0].update(name="1.snapshot.json")))


def test_signing_needs_exactly_the_keys_that_are_asked_for():
    """A missing key file and a strange one are both named."""
    request = PREPARED.request("ada")
    signers = HOLDERS.signers("ada")
    with pytest.raises(UsageError, match="needs the keys of"):
        exchange.sign(request, signers[:1])
    with pytest.raises(UsageError, match="is not asked for"):
        exchange.sign(request, [*signers, *HOLDERS.signers("ben")])


def test_a_response_to_another_request_is_refused():
    """A signature made for another ceremony can't be used here."""
    other = world.prepared(REGISTRY, HOLDERS, trial=True)
    foreign = world.responses(other, HOLDERS, "ada")
    with pytest.raises(EvidenceError, match="answers request"):
        assemble([*foreign, *(r for r in RESPONSES if r.holder != "ada")])


def forged(holder, change):
    document = json.loads(response_of(holder).format())
    change(document)
    return exchange.Response.parse(json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")


FORGERIES = {
    "a flipped bit": lambda d: d["signatures"][0].update(
        sig=base64.b64encode(
            bytes([b ^ (i == 20) for i, b in enumerate(base64.b64decode(d["signatures"][0]["sig"]))])
        ).decode()
    ),
    "signatures swapped between documents": lambda d: d["signatures"][0].update(
        sig=d["signatures"][1]["sig"]
    ),
    "an empty signature": lambda d: d["signatures"][0].update(sig=""),
    "another payload digest": lambda d: d["signatures"][0].update(payload_sha256="00" * 32),
    "a missing signature": lambda d: d["signatures"].pop(),
    "a signature twice": lambda d: d["signatures"].append(d["signatures"][0]),
    "another key's name": lambda d: d["signatures"][0].update(key="00" * 32),
    "an unasked document": lambda d: d["signatures"][0].update(document="1.snapshot.json"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_response_is_refused_on_arrival_for(forgery):
    """One bad signature refuses the whole response, even when the others would reach the threshold."""
    others = [r for r in RESPONSES if r.holder != "ada"]
    with pytest.raises(SignatureError):
        assemble([*others, forged("ada", FORGERIES[forgery])])


def test_responses_by_strangers_and_doubles_are_refused():
    """One response per holder of this plan."""
    with pytest.raises(UsageError, match="two responses by 'ada'"):
        assemble([*RESPONSES, response_of("ada")])
    with pytest.raises(UsageError, match="holds no key in this plan"):
        assemble([*RESPONSES, forged("ada", lambda d: d.update(holder="eve"))])


def stable_id(name: str) -> str:
    """A test's name must not hold a digest of this run's keys: parallel workers would collect other tests."""
    return re.sub(r"[0-9a-f]{64}", "DIGEST", name)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".txt")], ids=stable_id)
def test_a_changed_byte_in_any_file_of_the_output_is_refused(name):
    """Every file is bound to the root, directly or through a signature."""
    raw = FILES[name]
    if name == "transcript-signatures.jsonl":
        raw = raw[: raw.index(b"\n")]  # the last line is the end of the chain: nothing after it names it
    for at in range(0, len(raw), 41):
        bad = bytearray(FILES[name])
        bad[at] ^= 1
        with pytest.raises(CountermarkError):
            a.verify_first(FILES | {name: bytes(bad)}, now=world.NOW)


def test_a_folder_of_an_earlier_program_has_no_plan_and_verifies():
    """Nothing that is served needs the plan; only `rotate` does, and says so."""
    a.verify_first({n: c for n, c in FILES.items() if n != "plan.toml"}, now=world.NOW)


@pytest.mark.parametrize("name", [name for name in FILES if name != "plan.toml"], ids=stable_id)
def test_a_missing_file_of_the_output_is_named(name):
    """The refusal says which one."""
    with pytest.raises(MalformedError, match="has no"):
        a.verify_first({n: c for n, c in FILES.items() if n != name}, now=world.NOW)


def test_files_of_another_ceremony_do_not_fit():
    """Every file exchanged with its namesake of another ceremony is refused."""
    others = world.finished(world.Registry(), world.Holders())
    for name in FILES:
        if name in others:  # plan.toml names the public keys, so even it is another one
            with pytest.raises(EvidenceError):
                a.verify_first(FILES | {name: others[name]}, now=world.NOW)


def test_an_expired_output_is_refused():
    """`verify` on a root past its expiry says so."""
    from datetime import timedelta

    with pytest.raises(EvidenceError, match="expires"):
        a.verify_first(FILES, now=world.NOW + timedelta(days=366))


def test_the_transcript_shows_a_dropped_or_changed_line():
    """The chain names each line's predecessor."""
    raw = FILES["transcript-signatures.jsonl"]
    first = Transcript.parse(FILES["transcript.jsonl"])
    lines = raw.splitlines(keepends=True)
    assert len(lines) == 5  # four responses, and the thresholds
    for bad in (b"".join(lines[1:]), b"".join(lines[:1] + lines[2:]), lines[1] + lines[0]):
        with pytest.raises(EvidenceError, match="changed or is missing"):
            Transcript.parse(bad, after=first)
    assert PREPARED.plan.sha256 in first.format().decode()


def test_the_transcript_holds_no_secret():
    """Neither passphrase nor private key appears in anything the ceremony writes."""
    everything = b"".join(FILES.values())
    assert world.PASSPHRASE not in everything and b"PRIVATE" not in everything


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_our_errors_only(raw):
    """Requests, responses and transcripts."""
    for parse in (exchange.Request.parse, exchange.Response.parse, Transcript.parse):
        try:
            parse(raw)
        except CountermarkError:
            continue
        assert raw == b""


def test_a_signature_by_the_right_holder_with_another_key_is_refused():
    """The key must be the one the plan lists, not only the name."""
    request = PREPARED.request("dora")
    impostor = KeySigner(world.p256())
    lying = exchange.Request(
        request.holder,
        request.title,
        request.origin,
        request.trial,
        request.transcript_sha256,
        tuple(
            exchange.Asked(d.name, d.payload, d.needs, (("dora-authority", impostor.keyid),), d.says)
            for d in request.documents
        ),
        request.trust_file,
    )
    response = exchange.sign(lying, [impostor])
    with pytest.raises(EvidenceError, match="answers request"):
        assemble([*(r for r in RESPONSES if r.holder != "dora"), response])
