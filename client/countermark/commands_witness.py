"""The `witness` commands; the engine is witness.py."""

from __future__ import annotations

import argparse
import signal
import threading
import time

from countermark import serving, witness
from countermark.console import put, say
from countermark.limits import WITNESS_BODY_MAX_BYTES
from countermark.tlog.note import VerifierKey


def init(arguments: argparse.Namespace) -> int:
    put(witness.create_witness(arguments.dir, arguments.name).format())
    return 0


def add_log(arguments: argparse.Namespace) -> int:
    log = witness.load_store(arguments.dir).add_log([VerifierKey.parse(vkey) for vkey in arguments.vkey])
    say(f"witnessing {log.origin} from size {log.size}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    engine = witness.load_witness(arguments.dir, lambda: int(time.time()))
    host, port = serving.parse_listen(arguments.listen)
    with serving.listening(engine, host, port, max_body=WITNESS_BODY_MAX_BYTES) as server:
        # shutdown() waits for the loop, so it must not run inside the loop's own thread.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        say(f"witness listens on {server.url}")
        server.serve_forever(poll_interval=0.1)
    return 0
