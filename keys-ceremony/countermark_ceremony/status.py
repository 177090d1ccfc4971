"""Where a registry's ceremonies stand: what expires when, and when to hold the next one.

    trust    version 1 expires 2027-05-21T12:00:00Z, in 180 days; hold the next ceremony by 2027-03-22

Four spellings of the same facts: lines for people, JSON, Prometheus text for a textfile collector, and an iCalendar
file (RFC 5545) with one day for each role on which its next ceremony is to be held.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from countermark_ceremony.previous import Previous

RENEW_BEFORE = {  # the next ceremony is held so long before an expiry
    "root": timedelta(days=90),
    "targets": timedelta(days=90),
    "index": timedelta(days=90),
    "trust": timedelta(days=60),
}


def lines(newest: Previous, now: datetime) -> list[str]:
    """One sentence a role, the first to expire first; `!` marks one whose next ceremony is due."""
    found = []
    for role, version, expires in _roles(newest):
        due, left = expires - RENEW_BEFORE[role], (expires - now).days
        mark = "!" if now >= due else " "
        when = f"in {left} days" if expires > now else "that is PAST"
        found.append(
            f"{mark} {role:8} version {version} expires {_iso(expires)}, {when}; "
            f"hold the next ceremony by {due:%Y-%m-%d}"
        )
    return found


def as_json(newest: Previous, now: datetime) -> str:
    """{"now", "origin", "roles": {role: {"expires", "renew_by", "version"}}}"""
    roles = {
        role: {
            "expires": _iso(expires),
            "renew_by": _iso(expires - RENEW_BEFORE[role]),
            "version": version,
        }
        for role, version, expires in _roles(newest)
    }
    document = {"now": _iso(now), "origin": newest.trust_file.origin, "roles": roles}
    return json.dumps(document, indent=2, sort_keys=True)


def prometheus(newest: Previous) -> str:
    """Gauges in Unix seconds, for a textfile collector."""
    text = []
    for name, what in (("expires", "when a role expires"), ("renew_by", "when its next ceremony is due")):
        text += [f"# HELP countermark_ceremony_{name}_seconds {what}"]
        text += [f"# TYPE countermark_ceremony_{name}_seconds gauge"]
        for role, _, expires in _roles(newest):
            at = expires if name == "expires" else expires - RENEW_BEFORE[role]
            text.append(f'countermark_ceremony_{name}_seconds{{role="{role}"}} {int(at.timestamp())}')
    return "\n".join(text)


def calendar(newest: Previous, now: datetime) -> str:
    """Days to hold the next ceremony on, CRLF as RFC 5545 wants."""
    origin = newest.trust_file.origin
    text = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//countermark//ceremony//EN"]
    for role, version, expires in _roles(newest):
        day = expires - RENEW_BEFORE[role]
        text += [
            "BEGIN:VEVENT",
            f"UID:{version}.{role}@{origin.replace('/', '.')}",
            f"DTSTAMP:{now.astimezone(UTC):%Y%m%dT%H%M%SZ}",
            f"DTSTART;VALUE=DATE:{day:%Y%m%d}",
            f"SUMMARY:hold a ceremony: {role} expires {expires:%Y-%m-%d}",
            "END:VEVENT",
        ]
    return "\r\n".join([*text, "END:VCALENDAR"])


def _roles(newest: Previous) -> list[tuple[str, int, datetime]]:
    found = [(role, each.signed.version, each.signed.expires) for role, each in newest.metadata.items()]
    return sorted(found, key=lambda each: each[2])


def _iso(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
