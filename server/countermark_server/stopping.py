"""Stopping: an event that SIGTERM and SIGINT set, whatever the process does at that moment.

    stop = stop_on_signals()
    while not stop.wait(0.2):
        ...

Python calls a signal's handler between two instructions of the main thread. If that thread is within `Event.wait`, it
may hold the event's own lock, and `Event.set` called there would wait for it for ever: no SIGTERM ends that process.
So the handler only puts a word into a queue whose `put` may interrupt anything (`queue.SimpleQueue`: "reentrant"),
and a thread that reads the queue sets the event.
"""

from __future__ import annotations

import queue
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set. To be called by the main thread."""
    stop, heard = threading.Event(), queue.SimpleQueue[int]()

    def pass_on() -> None:
        heard.get()
        stop.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, lambda number, _frame: heard.put(number))
    return stop
