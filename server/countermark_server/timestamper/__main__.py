"""The timestamper's command.

    python -m countermark_server.timestamper --data DIR --listen 127.0.0.1:8081 --registry https://registry.example

DIR is the data directory; of it, this process uses `timestamper/` (its key, its root, its database), the
passphrase, and `run/` to say where it listens. On a machine of its own, that is all DIR holds. The root it
starts from is `DIR/timestamper/root.json`, put there when the ceremony was adopted, or `--root FILE` at the
first start: never fetched.

    python -m countermark_server.timestamper --data DIR --take-over

makes this timestamper the one that signs, of several that share a fence (`timestamper.fence`), and ends; the other
refuses from then on. `--lost` with it says that the other's state is gone for good. docs/operations/standby.md
"""

from __future__ import annotations

import secrets
import socket
import sys
import threading
import time
from pathlib import Path

import click

from countermark import replay
from countermark.errors import CountermarkError, UsageError
from countermark.fetch import HttpFetcher
from countermark.serving import listening
from countermark_server import onlinekeys, telemetry
from countermark_server.settings import Settings, load
from countermark_server.stopping import stop_on_signals
from countermark_server.stores import places
from countermark_server.timestamper.errors import RefusalError
from countermark_server.timestamper.fence import Fence, Holder
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
@click.option(
    "--take-over", "takes_over", is_flag=True, help="Become the one of the fence that signs, and end."
)
@click.option(
    "--lost", is_flag=True, help="With --take-over: the state of the one that signed is gone for good."
)
def command(
    *, data: Path, listen: str | None, registry: str | None, root: Path | None, takes_over: bool, lost: bool
) -> None:
    """Sign TUF timestamps for metadata that the log demands, and for no other."""
    settings = load(data)
    registry = registry or settings.timestamper.registry_url or settings.registry.base_url
    telemetry.configure(settings.telemetry, NAME)
    if lost and not takes_over:
        raise UsageError("--lost goes with --take-over")
    if takes_over:
        return take_over(settings, registry=registry, root=root, lost=lost)
    listen = listen or settings.timestamper.listen
    return run(settings, stop_on_signals(), listen=listen, registry=registry, root=root)


def take_over(settings: Settings, *, registry: str, root: Path | None, lost: bool) -> None:
    """Make this timestamper the one of its fence that signs."""
    store = Store(settings.data / "timestamper" / "timestamper.sqlite")
    try:
        before = _judge(settings, store, HttpFetcher(), registry, root).take_over(
            secrets.token_hex(8), now=int(time.time()), lost=lost
        )
    finally:
        store.close()
    said = "nobody held the fence" if before is None else f"{before.who} had won number {before.version}"
    click.echo(f"this timestamper signs from now on; {said}. Start it, and point tufrepo at it", err=True)


def run(
    settings: Settings, stop: threading.Event, *, listen: str, registry: str, root: Path | None = None
) -> None:
    """Work until `stop`."""
    replay.quicken()
    folder, run_folder = settings.data / "timestamper", settings.data / "run"
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"timestamper.listen is {listen!r}, must be HOST:PORT")
    fetcher = HttpFetcher()
    store = Store(folder / "timestamper.sqlite")
    judge = _judge(settings, store, fetcher, registry, root)
    _check_turn(judge)
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


def _judge(settings: Settings, store: Store, fetcher: HttpFetcher, registry: str, root: Path | None) -> Judge:
    """This timestamper's judge, with its keys, its root and its fence."""
    if store.fact("holder") is None:
        with store.transaction():
            store.set_fact("holder", secrets.token_hex(8))
    me = Holder(store.fact("holder"), socket.gethostname())
    fence = Fence(places.fence(settings), me, shared=bool(settings.timestamper.fence))
    judge = Judge(store, onlinekeys.open_keys(settings, "timestamp"), fetcher, registry, fence)
    judge.adopt_root(_root(root or settings.data / "timestamper" / "root.json", store))
    judge.check_keys()
    return judge


def _check_turn(judge: Judge) -> None:
    """Do not begin where another one took over: it would look like a timestamper that works."""
    try:
        judge.check_turn()
    except RefusalError as refusal:
        if refusal.code == "fence-unreachable":
            telemetry.logger().warning("fence out of reach", error=str(refusal))
            return  # it may come back, and every attempt asks for it
        if refusal.code != "taken-over":
            raise
        raise UsageError(
            str(refusal),
            hint="stop it, or let it take over again with --take-over (docs/operations/standby.md)",
        ) from None


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
