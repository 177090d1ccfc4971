"""The timestamper's command.

    python -m countermark_server.timestamper --data DIR --listen 127.0.0.1:8081 --registry https://registry.example

DIR is the data directory; of it, this process uses `timestamper/` (its key, its root, its database), the
passphrase, and `run/` to say where it listens. On a machine of its own, that is all DIR holds. The root it
starts from is `DIR/timestamper/root.json`, put there when the ceremony was adopted, or `--root FILE` at the
first start: never fetched.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import click

from countermark.errors import CountermarkError, UsageError
from countermark.fetch import HttpFetcher
from countermark.serving import listening
from countermark_server import onlinekeys, telemetry
from countermark_server.settings import Settings, load
from countermark_server.timestamper.judge import Judge
from countermark_server.timestamper.service import Service
from countermark_server.timestamper.store import Store

NAME = "timestamper"
BODY_MAX_BYTES = 0  # nobody has anything to tell us


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data directory.")
@click.option("--listen", help="HOST:PORT to serve the timestamp on; port 0 picks a free one.")
@click.option("--registry", help="Base URL the registry is read from.")
@click.option("--root", type=click.Path(path_type=Path), help="The root to start from, at the first start.")
def command(data: Path, listen: str | None, registry: str | None, root: Path | None) -> None:
    """Sign TUF timestamps for metadata that the log demands, and for no other."""
    settings = load(data)
    telemetry.configure(settings.telemetry, NAME)
    run(
        settings,
        _stop_on_signals(),
        listen=listen or settings.timestamper.listen,
        registry=registry or settings.timestamper.registry_url or settings.registry.base_url,
        root=root,
    )


def run(
    settings: Settings, stop: threading.Event, *, listen: str, registry: str, root: Path | None = None
) -> None:
    """Work until `stop`."""
    folder, run_folder = settings.data / "timestamper", settings.data / "run"
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"timestamper.listen is {listen!r}, must be HOST:PORT")
    fetcher = HttpFetcher()
    store = Store(folder / "timestamper.sqlite")
    judge = Judge(store, onlinekeys.open_keys(settings, "timestamp"), fetcher, registry)
    judge.adopt_root(_root(root or folder / "root.json", store))
    judge.check_keys()
    retry = settings.timestamper.retry_interval
    service = Service(store, judge, fetcher, registry, clock=time.time, retry_interval=retry)
    _forget(run_folder)
    with listening(service.engine, host.strip("[]"), int(port), max_body=BODY_MAX_BYTES) as server:
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        telemetry.record(run_folder, NAME, {"url": server.url, "metrics": f"{server.url}/metrics"})
        telemetry.ready(run_folder, NAME, url=server.url)
        telemetry.logger().info("started", url=server.url, registry=registry)
        try:
            service.run(stop, poll_interval=settings.timestamper.poll_interval)
        finally:
            server.shutdown()
            _forget(run_folder)
            store.close()


def _root(path: Path, store: Store) -> bytes:
    """The root to start from; after the first start the database holds it."""
    if path.exists():
        return path.read_bytes()
    if store.fact("root") is None:
        raise UsageError(
            f"the timestamper has no root to start from: {path} does not exist",
            hint="`countermark-server adopt` puts it there; or name one with --root FILE",
        )
    return b""


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: stop.set())
    return stop


def _forget(run_folder: Path) -> None:
    """Remove what a process of this name said about itself."""
    for name in (f"{NAME}.json", f"{NAME}.ready.json"):
        (run_folder / name).unlink(missing_ok=True)


def main() -> None:
    """Run the command; every error is a sentence and an exit code."""
    try:
        command.main(prog_name="python -m countermark_server.timestamper", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except CountermarkError as error:
        sys.stderr.write(f"countermark-server: error: {error}\n")
        if error.hint:
            sys.stderr.write(f"countermark-server: hint: {error.hint}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
