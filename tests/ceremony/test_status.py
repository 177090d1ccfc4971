"""What expires when, in four spellings; who has signed and who has not."""

import json
from datetime import timedelta

import pytest

from countermark.errors import EvidenceError
from countermark_ceremony import assemble, history, status
from tests import ceremony_world as world

REGISTRY, HOLDERS = world.Registry(), world.Holders()
BASE = history.verify(world.finished(REGISTRY, HOLDERS))[-1]


def test_the_first_role_to_expire_is_said_first_and_marked_when_due():
    """Trust after 180 days; its next ceremony is due 60 days before."""
    assert status.lines(BASE, world.NOW)[0].startswith(
        "  trust    version 1 expires 2027-05-21T12:00:00Z, in 180"
    )
    due = status.lines(BASE, world.NOW + timedelta(days=120))
    assert [line[0] for line in due] == ["!", " ", " ", " "]
    assert "that is PAST" in status.lines(BASE, world.NOW + timedelta(days=181))[0]


def test_every_spelling_says_the_same():
    """JSON, Prometheus and the calendar name the same moments."""
    said = json.loads(status.as_json(BASE, world.NOW))["roles"]
    assert said["trust"] == {
        "expires": "2027-05-21T12:00:00Z",
        "renew_by": "2027-03-22T12:00:00Z",
        "version": 1,
    }
    trust = int((world.NOW + timedelta(days=180)).timestamp())
    assert f'countermark_ceremony_expires_seconds{{role="trust"}} {trust}' in status.prometheus(BASE)
    calendar = status.calendar(BASE, world.NOW).split("\r\n")
    assert "DTSTART;VALUE=DATE:20270322" in calendar and calendar.count("BEGIN:VEVENT") == 4


def test_who_is_missing_is_said_before_all_have_answered():
    """A line a document; an answer to something else is refused here already."""
    prepared = world.prepared(REGISTRY, HOLDERS)
    ada = world.responses(prepared, HOLDERS, "ada")
    assert assemble.who_signed(prepared, ada)[0] == "1.root.json 1/2: missing ben-root, cleo-root"
    other = world.prepared(REGISTRY, HOLDERS, trial=True)
    with pytest.raises(EvidenceError, match="answers request"):
        assemble.who_signed(other, ada)
