"""tufrepo: the online TUF roles, bins and snapshot. It lists what the log demands, and moves nothing by itself.

    cosigned checkpoint -> replay entries -> changed bins, snapshot (immutable files) -> `tuf` entry -> its cosigned
    checkpoint -> candidate.json -> the timestamper signs -> its timestamp, checked, is copied to the public tree
    -> submissions go from cleared to listed

Law of this room:

1. It acts only on entries that a cosigned, public checkpoint covers. The database says where, never what.
2. One candidate at a time. Its row (`tuf_candidate`) says how far it got; a restart goes on from there.
3. A version number is claimed durably before anything is signed with it, and never claimed twice: after a crash
   the number is skipped, so no version is ever signed with two contents.
4. Until the timestamp is public nothing has happened: every client, and this registry, goes by the old one.
5. tuf entries never trigger a publish; listing changes, status entries and the hourly heartbeat do.

6. What nothing names any more goes only after `tuf.retention`, and roots never (retention.py).

Files: `station` runs it; `publish` is one step each, from `parts`, and `due` says when; `genesis` is where it starts;
`candidate` computes, `snapshot` serialises, `store` remembers;
`keys` says what signs, `renewing` and `rebinning` what a later ceremony changes.

Trust: who owns these two keys can hide files or list other ones only if the timestamper, which replays the
log itself, signs that too.
"""
