"""Cache headers: four promises, by name.

IMMUTABLE   the name contains a hash, a version or a size: these bytes for ever
FOLLOWED    replaced as a whole, and every reader wants the newest: ask each time
BRIEF       a page or file that a decision may withdraw: a minute bounds how long the old answer lives
NEVER       answers about one person or one moment, and all errors
"""

from __future__ import annotations

from countermark_server.stores.served import FOLLOWED, IMMUTABLE

__all__ = ["BRIEF", "FOLLOWED", "IMMUTABLE", "NEVER"]

BRIEF = "public, max-age=60"
NEVER = "no-store"
