"""Archives: wheels and source distributions read without ever being unpacked.

Law: an archive is accepted only if every reader sees the same members in it. Records are walked from the first
byte to the last; signatures are never searched for, since the bytes of a zip may legally lie inside a member.
What a header claims is never believed: sizes, checksums and budgets are measured on the real bytes while they
stream by. Nothing is written anywhere, and no member is ever run.

The upload door uses this before a file is received, the scan's sandboxed child again before it looks inside.
"""
