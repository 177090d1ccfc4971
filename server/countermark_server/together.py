"""Group commit: whoever comes while a transaction runs shares the next one, and nobody waits for company.

    propose = Together(work)                    # work(items) -> an answer, or an error, for each
    answer = propose(item)                      # returned after the work, and its commit, was done

A commit waits for the disk, and each transaction asks its few questions however little is in it: a hundred
requests cost hardly more than one when they share both. There is no thread of its own and no pause: the first who
comes leads; those who come meanwhile sit down, and when the commit has returned one of them leads the next, which
takes all that are seated. Alone, one pays for one transaction and nothing else.

`work` opens its transactions itself and returns once they have committed. An Exception that it puts in an item's
place is raised for that item alone, so it must find out before it writes. What `work` itself raises (the commit
failed), everybody of this transaction gets: nothing of it happened.

What was committed may have to be waited for still (asking.py). With `until`, which finds the `Told` in an answer, its
caller sleeps on until that is told: one sleep for a request, where being woken costs as much as a look at a table.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

MOST = 128  # items of one transaction: more would let the first of them wait for the last

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Work = Callable[[Sequence[Item]], Sequence[Answer | Exception]]


class Told:
    """Something that happens once: `then` calls back when it has, at once where it has already."""

    def __init__(self) -> None:
        self._call: Callable[[], object] | None = None
        self._is_told = False

    def tell(self) -> None:
        """It happened."""
        with _TELLING:
            self._is_told, call = True, self._call
        if call is not None:
            call()

    def then(self, call: Callable[[], object]) -> None:
        """Call this once, from whichever thread comes second."""
        with _TELLING:
            if not self._is_told:
                self._call = call
                return
        call()


_TELLING = threading.Lock()  # one for all: held for two assignments


class _Seat(Generic[Item, Answer]):
    """Somebody who waits: for an answer, or to lead."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer | BaseException | None = None
        self.leads = False
        self.told = threading.Lock()  # held until there is something to tell: the cheapest way to wait once
        self.told.acquire()


class Together(Generic[Item, Answer]):
    """One kind of work, whose callers share transactions. For any number of threads."""

    def __init__(
        self,
        work: Work[Item, Answer],
        *,
        most: int = MOST,
        until: Callable[[Answer], Told | None] = lambda _: None,
    ) -> None:
        self._work = work
        self._most = most
        self._until = until
        self._lock = threading.Lock()
        self._seated: deque[_Seat[Item, Answer]] = deque()
        self._led = False

    def __call__(self, item: Item) -> Answer:
        """The item's answer, once the transaction it was part of has committed and what it waits for was told.

        Or the error in its place.
        """
        seat = _Seat[Item, Answer](item)
        with self._lock:
            self._seated.append(seat)
            seat.leads, self._led = not self._led, True
        if not seat.leads:
            seat.told.acquire()
        if seat.leads:
            self._lead()
            seat.told.acquire()
        if isinstance(seat.answer, BaseException):
            raise seat.answer
        return seat.answer  # type: ignore[return-value]

    def _lead(self) -> None:
        """One transaction for those who are seated; its leader is the first of them. Then the next leads."""
        with self._lock:
            taken = [self._seated.popleft() for _ in range(min(self._most, len(self._seated)))]
        try:
            answers = self._work([seat.item for seat in taken])
            # Committed. If we stop here all of it is done, and nobody was told.
            for seat, answer in zip(taken, answers, strict=True):
                seat.answer = answer
        except BaseException as error:
            for seat in taken:
                seat.answer = error
        with self._lock:
            following = self._seated[0] if self._seated else None
            self._led = following is not None
        if following is not None:  # before the answers: it need not wait until all of them are told
            following.leads = True
            following.told.release()
        for seat in taken:
            waits = None if isinstance(seat.answer, BaseException) else self._until(seat.answer)  # type: ignore[arg-type]
            if waits is None:
                seat.told.release()
            else:
                waits.then(seat.told.release)
