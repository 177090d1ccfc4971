"""The law of the log: bytes and integers in, values or errors out. No I/O, no clock, no randomness of its own.

Every format here is parsed strictly: split on the bytes it names, decoded, encoded again and compared, so that
two readers cannot see two things in the same bytes. Verified and unverified things are different types.
"""
