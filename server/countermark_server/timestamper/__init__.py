"""The timestamper: a process of its own, with a key of its own, that believes nothing the registry says.

It reads the registry over HTTP like any client, replays every entry of the log through the rules into its own
database, and signs TUF's timestamp only for metadata that says exactly what the log's history demands. Whoever
takes over the registry's machine, its database and its online keys still can't list a file that is not in the
log, keep a takedown from the world for longer than 15 minutes, or publish metadata that was not logged first:
for each of these he needs this process's signature too.

Law of this room:

1. It imports no station, no `db` and no store of the registry; everything comes through a Fetcher. A folder or a
   bucket of its own (`stores.places`) holds its fence.
2. Its state is durable before a signature leaves it (`store.py`), and a refused attempt changes nothing
   (a newer public timestamp is adopted before the attempt; a number that was won stays won).
3. When a check fails it goes on serving the old timestamp, says why, counts it, and raises the alarm metric.

Files: `judge` decides, from `history` (the log), `chain` (signatures) and `bincheck` (listings); `carry` makes the
timestamp, `fence` and `turn` see to it that one timestamper signs, one content of each version; `store` remembers,
`service` polls and answers HTTP.

What it can't see: whether a verdict was honest, who sits behind an account, and a log that forks only for it;
the last one is what witnesses are for.
"""
