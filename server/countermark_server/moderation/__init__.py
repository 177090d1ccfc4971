"""Moderation: people decide about what the scanner held.

Law: a hold ends only by a logged decision of a person - `clear` (the file goes on) or `takedown` (it is
rejected and its file name is spent) -, signed by the moderation role key, never by a timer. A submission in
state `held` waits here; it needs no process to stay held.
"""
