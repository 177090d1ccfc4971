"""The public TUF conformance suite's client under test: its command line over the client's own TUF path.

    adapter.py --metadata-dir DIR init ROOT
    adapter.py --metadata-dir DIR --metadata-url URL refresh
    adapter.py --metadata-dir DIR --metadata-url URL --target-dir DIR --target-base-url URL --target-name NAME \
        download

Every command runs `tufclient.refresh` from the pinned root, through `HttpFetcher`, as `trust.opened` does.
What lies above it there (the log, the trust file, freshness) has no counterpart in the suite. The suite counts
what a refresh that failed half-way has learned, so the folder is the working copy itself, not its replacement.

Exit codes are the suite's: 0, and 1 for any failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from countermark.errors import CountermarkError
from countermark.fetch import HttpFetcher
from countermark.pins import Registry
from countermark.tufclient import Recorder, refresh, tuf_errors

PINNED = "pinned.root"  # not .json: the suite counts those


class Served(Registry):
    """A registry whose metadata and targets are where the suite says."""

    @property
    def metadata_url(self) -> str:
        return self.url


def download(arguments: argparse.Namespace) -> None:
    """Refresh, and bring the targets that were asked for, in their order."""
    folder = Path(arguments.metadata_dir)
    registry = Served(arguments.metadata_url.rstrip("/"), folder, (folder / PINNED).read_bytes(), False)
    updater = refresh(registry, Recorder(HttpFetcher()), folder, int(time.time()))
    for name in arguments.target_name or []:
        with tuf_errors(registry.url):
            info = updater.get_targetinfo(name)
            if info is None:
                raise SystemExit(1)
            place = str(Path(arguments.target_dir) / name.replace("%", "%25").replace("/", "%2F"))
            if updater.find_cached_target(info, place) is None:
                updater.download_target(info, place, arguments.target_base_url)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-dir", required=True)
    for option in ("--metadata-url", "--target-dir", "--target-base-url"):
        parser.add_argument(option)
    parser.add_argument("--target-name", action="append")
    parser.add_argument("-v", "--verbose", action="count")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root")
    commands.add_parser("refresh")
    commands.add_parser("download")
    arguments = parser.parse_args()
    if arguments.command == "init":
        (Path(arguments.metadata_dir) / PINNED).write_bytes(Path(arguments.root).read_bytes())
        return 0
    try:
        download(arguments)
    except CountermarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
