"""Stores: where bytes live. Two promises, two kinds of store.

*What never changes* (`blobs`, `staging`, and nearly everything in `public`): a name is written once. Writing
the same bytes again is fine, since recovery does it; writing other bytes under a name is an error, because
somebody may hold a hash or a signature over the first. Files are mode 0444 and durable when the call returns.

*What is replaced as a whole* (`heads` in the database; three named files in `public`): readers see the old
value or the new, never a mixture. The head row moves by compare-and-swap: who lost the race changed nothing.

Trust: nothing read back from a store is believed because it was there. Blobs and tiles are hashed again by
whoever relies on them. The head row is trusted for one thing only: to say that a size was signed already.
"""
