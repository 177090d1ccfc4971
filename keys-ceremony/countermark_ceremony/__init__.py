"""The offline ceremony: how a registry's root comes to be, and who saw what before signing.

Law of this room: it never opens a socket (a test replays a whole ceremony under an audit hook), it never
overwrites, and its only input is one reviewed plan file. It imports from the client's format code only
(`tlog`, `entry`, `statement`, `trustfile`, `keyfile`, `words`, `errors`, `limits`) and from `tuf`.

    tables.py    TOML read strictly
    plan.py      the plan of a first ceremony, validated whole before a key is touched
    handover.py  ceremony-input.json: the public halves a registry's `init` hands over
    payloads.py  the exact bytes to be signed, and the sentences that describe them
    exchange.py  one request and one response file per holder
    assemble.py  responses checked on arrival; the finished ceremony written, and verified again from disk
    transcript.py  hash-chained lines of what happened
    previous.py nextplan.py nextpayloads.py difference.py
                 every later ceremony: what it follows, what it changes, in whose names it is signed
    history.py simulate.py
                 all ceremonies verified from one folder; clients of every age walk the chain
    rotation.py rotationtext.py
                 from what happened to people and keys, to the plan of the next ceremony
    status.py    what expires when, for people, calendars and Prometheus
    rehearsal.py softhsm.py
                 whole ceremonies with stand-in keys, through the commands themselves; nothing is kept
    trial.py     the same steps played by one person with fresh keys
    cli.py console.py  arguments and talk
"""

__version__ = "0.1.0"
