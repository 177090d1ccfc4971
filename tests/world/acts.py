"""The acts of the demo, in order. Each drives real programs and ends by checking what it claims."""

from __future__ import annotations

from tests.world.acts_afterwards import audit, power
from tests.world.acts_attacks import fake_registry, insider
from tests.world.acts_history import rewritten
from tests.world.acts_publish import ceremony, publisher
from tests.world.acts_refusals import refused
from tests.world.stage import Act

ACTS = (
    Act(
        "The ceremony: offline keys, 2 of 3, and a registry of six processes",
        ceremony,
        "no single person and no online machine makes the root",
        "three custodians",
    ),
    Act(
        "A publisher: two commands, or the tools they already use",
        publisher,
        "what is uploaded is in the log before it is listed",
        "log and witness",
    ),
    Act(
        "The insider: stored wheel, index and database are swapped",
        insider,
        "the bytes are those the publisher signed",
        "whoever installs",
    ),
    Act(
        "A fake registry at the same address, fully consistent",
        fake_registry,
        "the registry is the one whose root was read out",
        "a pinned root",
    ),
    Act(
        "Refusals: each with a reason, and nothing else has changed",
        refused,
        "no token, no clock and no liar makes a file good",
        "registry, client, timestamper",
    ),
    Act(
        "History is rewritten, with every online key",
        rewritten,
        "the log has one history, or the proof that it has two",
        "witness, and a client",
    ),
    Act(
        "The plug is pulled: log, tufrepo and timestamper are killed in the middle of an upload",
        power,
        "nothing was lost, and nothing was signed twice",
        "a bundle, and fsck",
    ),
    Act(
        "An auditor replays the log, and compares TUF and the index with it",
        audit,
        "every decision is in the log, and every page follows it",
        "an auditor",
    ),
)
