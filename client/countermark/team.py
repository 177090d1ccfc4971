"""Team: one proxy for many people, each of whom sees what the registry shows them, and nothing of the others.

    team = Team(lambda authorization: Proxy(registry, fetcher_for(authorization), store, ...), lends=False)
    team.answer(request)

The credentials of a request go to the registry's own host with every question that is asked in their name, and to no
mirror. Judgements and pages are kept for each credentials apart; who brings none, or others, makes the registry
answer anew. Files are kept once, by their hash, and handed to whom the registry has just named them.

In memory a user is the SHA-256 of the header, never the header's own text in a name or a message; the least recent of
TEAM_USERS_MAX is forgotten. Answers to credentials say `private`, so that no cache in between keeps them; so do all
answers of a proxy that lends its own certificate, which are for whom the server in front let in. TLS is the business
of that server (deploy/nginx/team-proxy.conf): without it, credentials can be read on the way. What is for everybody
it keeps itself, as long as we say (proxyanswers.py).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from countermark.limits import TEAM_USERS_MAX
from countermark.proxy import Proxy
from countermark.proxyanswers import private
from countermark.serving import Request, Response


class Team:
    """The engine of a proxy that several people share. Safe to call from many threads."""

    def __init__(self, make: Callable[[str | None], Proxy], *, lends: bool) -> None:
        self._make, self._lends = make, lends
        self._proxies: OrderedDict[str, Proxy] = OrderedDict()
        self._choosing = threading.Lock()

    def answer(self, request: Request) -> Response:
        """Answer a request in the name of who makes it."""
        authorization = request.headers.get("authorization")
        answer = self._of(authorization).answer(request)
        return private(answer) if self._lends or authorization is not None else answer

    def _of(self, authorization: str | None) -> Proxy:
        who = "" if authorization is None else hashlib.sha256(authorization.encode()).hexdigest()
        with self._choosing:
            if who not in self._proxies:
                self._proxies[who] = self._make(authorization)
            self._proxies.move_to_end(who)
            if len(self._proxies) > TEAM_USERS_MAX:
                self._proxies.popitem(last=False)
            return self._proxies[who]
