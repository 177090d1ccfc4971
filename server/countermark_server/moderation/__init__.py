"""Moderation: people decide about what the scanner held, and about files that turned out to be harmful.

Law: a hold ends only by a logged decision of a person - `clear` (the file goes on) or `takedown` (it is
rejected and its file name is spent) -, signed by the moderation role key, never by a timer. A submission in
state `held` waits here; it needs no process to stay held.

A decision is an entry first (decisions.py); rows follow what the log says (station.py). Pages and file door ask
the log's state themselves, so a decision acts there as soon as it has its place.
"""
