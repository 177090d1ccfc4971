"""Accounts: people, what proves who they are, and what they may do to keys and projects.

Law: a secret is stored only as its SHA-256 and compared in constant time. There are two kinds of token: a
*session* (made by an interactive sign-in, expires within the hour) may enrol keys; an *upload* token may upload, and
hand in what an enrolled key signed (upload/ahead.py, acts.py), or less where it is narrowed, and nothing else, for
ever: whoever steals one can never enrol, rotate or revoke a key or add an owner. In the log a person is 16 random
bytes; the mapping to a login stands in one table, and deleting it erases the person.
"""
