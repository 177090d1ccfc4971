"""The index: what anyone may read. Simple pages, files, states, and the static trees of log and TUF.

Law: read-only. Nothing in this room writes a row or a file (a test greps for it), so it may run in as many copies as
needed, or stand behind a cache. Only listed files appear on simple pages and have a file URL that answers. The proof
path (`/log/`, `/tuf/`) is static files with fixed names: no query strings, no cookies, no negotiation; what never
changes says so, and no error is ever cacheable - a cached 404 of a tile not yet written is a classic outage.
"""
