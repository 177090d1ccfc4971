"""Together: concurrent callers share a transaction, each gets its own answer, and a failure is told to all of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from countermark_server.together import Together, Told

CALLERS = 40


class Work:
    """Doubles numbers, one group at a time; holds the first group until it may go on."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go_on = threading.Event()
        self.under_way = 0

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.under_way += 1
        assert self.under_way == 1, "two transactions of one kind at a time"
        self.groups.append(list(items))
        if len(self.groups) == 1:
            assert self.go_on.wait(30)
        self.under_way -= 1
        if 13 in items:
            raise OSError("the disk is full")
        return [ValueError(f"{item} is odd") if item % 2 else 2 * item for item in items]


def everybody(work: Work, items: Sequence[int], *, most: int = 128) -> list[int | Exception]:
    """What each caller got, the first item's alone in its group and all others waiting meanwhile."""
    propose, seated = Together(work, most=most), threading.Semaphore(0)

    def call(item: int) -> int | Exception:
        seated.release()
        try:
            return propose(item)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(items)) as threads:
        first = threads.submit(call, items[0])
        while not work.groups:
            pass
        others = [threads.submit(call, item) for item in items[1:]]
        for _ in items:
            assert seated.acquire(timeout=30)
        while len(propose._seated) < len(items) - 1:
            pass
        work.go_on.set()
        return [each.result(30) for each in (first, *others)]


def test_who_comes_meanwhile_shares_the_next_transaction() -> None:
    """Forty callers make two transactions: the first one's, and that of all the others."""
    work = Work()
    items = [2 * n for n in range(CALLERS)]
    assert everybody(work, items) == [2 * item for item in items]
    assert [len(group) for group in work.groups] == [1, CALLERS - 1]


def test_a_group_has_a_bound() -> None:
    """Nobody waits for more company than that; all are served, in the order in which they came."""
    work = Work()
    items = [2 * n for n in range(CALLERS)]
    assert everybody(work, items, most=10) == [2 * item for item in items]
    assert [len(group) for group in work.groups] == [1, 10, 10, 10, 9]


def test_an_error_in_ones_place_is_ones_own() -> None:
    """The others of the same transaction have their answers."""
    said = everybody(Work(), [0, 1, 2, 3])
    assert (said[0], said[2]) == (0, 4)
    assert [str(said[n]) for n in (1, 3)] == ["1 is odd", "3 is odd"]


def test_a_failed_transaction_fails_for_all_of_it_and_for_nobody_else() -> None:
    """Who was committed before keeps the answer, who comes after is served."""
    work = Work()
    said = everybody(work, [0, 2, 13, 4])
    assert said[0] == 0
    assert [str(each) for each in said[1:]] == ["the disk is full"] * 3
    propose = Together(work)
    assert propose(6) == 12


@pytest.mark.parametrize("threads", [1, 8])
def test_nobody_is_forgotten(threads: int) -> None:
    """Many calls from few threads: each has its answer, and no leader is left over or missing."""
    propose = Together(list)
    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(propose, range(2000), timeout=60)) == list(range(2000))
    assert not propose._led
    assert not propose._seated


@pytest.mark.parametrize("order", ["told before anybody asks", "told later"])
def test_one_sleeps_until_what_the_answer_waits_for_was_told(order: str) -> None:
    """Committed is not enough: nobody has an answer before that, others of the transaction have theirs meanwhile."""
    told, done = {1: Told(), 2: Told(), 3: Told()}, threading.Semaphore(0)
    propose = Together[int, int](list, until=told.get)
    if order == "told before anybody asks":
        for one in told.values():
            one.tell()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(propose, number) for number in told]
        for each in waiting:
            each.add_done_callback(lambda _: done.release())
        assert threads.submit(propose, 0).result(30) == 0, "nobody waits for those who wait"
        assert done.acquire(timeout=0.05) == (order == "told before anybody asks")
        for one in told.values():
            one.tell()
        assert [each.result(30) for each in waiting] == [1, 2, 3]
