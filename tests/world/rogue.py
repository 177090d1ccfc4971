"""A tufrepo that lies: started beside the paused one, with the registry's own settings and keys.

    python -m tests.world.rogue --data DIR omits=files/a/a-1.whl resurrects=files/b/b-1.whl two-bins=files/c/c-1.whl
    {"code":"listing","kind":"omits","said":"bins-3f version 3 is not what the log demands: ..."}
    ...
    {"timestamp":9}

    omits        a file was taken down, and its bin, signed anew, lists it still
    resurrects   a file was taken down long ago, and its bin lists it again
    two-bins     the bin's file gets other content under the version that was accepted before

Each lie is a whole publish: signed with the true keys, written to the public tree, and logged. It waits until the
timestamper has refused, says why, and ends by writing what the log demands, as the operator's repair would.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from countermark_server.listing import Target, bin_index
from countermark_server.settings import load
from countermark_server.stores.public import Public
from countermark_server.tufrepo import store
from countermark_server.tufrepo.candidate import binding
from countermark_server.tufrepo.publish import Repository
from countermark_server.tufrepo.station import open_parts

SECONDS = 60.0
Bin = tuple[int, dict[str, Target]]


class Overwriting(Public):
    """A public tree in which what never changes does change."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def put_all(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            if self.read(name) not in (None, data):
                (self.folder / name).unlink()
        super().put_all(files)


class Rogue(Repository):
    """The one writer of bins and snapshots, in the wrong hands."""

    def demanded(self, path: str) -> Bin:
        """The bin of a path with the targets that the log demands; asked before anything is written."""
        self._pending.read()
        number = bin_index(path, self.current.bit_length)
        return number, self._pending.contents.get(number, self._pending.bin(number))

    def before(self, path: str) -> Target:
        """A file's target as the newest bin that listed it said."""
        number = bin_index(path, self.current.bit_length)
        role = self.current.role(number)
        for version in range(self.current.bins[number].version, 0, -1):
            raw = self._public.read(f"tuf/{version}.{role}.json")
            targets: dict[str, Target] = json.loads(raw)["signed"]["targets"] if raw else {}
            if path in targets:
                return targets[path]
        raise LookupError(f"no bin has ever listed {path}")

    def publish(self, contents: Mapping[int, dict[str, Target]], **reused: int) -> None:
        """Sign, write and log these bins; a role in `reused` gets that version once more."""
        self._pending.read()
        claim = store.claim
        with patch.object(store, "claim", lambda *a: {**claim(*a), **reused}):
            self._write(contents, True, self._pending.applied, binding(self._origin), self._relay.unlogged())
        wait(lambda: self.step() and self.open_state() == store.LOGGED)

    def open_state(self) -> str | None:
        """How far the candidate got; None when there is none."""
        return None if self._candidate is None else self._candidate.state

    def give_up(self) -> None:
        """The timestamper will not sign: the next candidate takes this one's place."""
        assert self._candidate is not None
        self._finish(self._candidate, store.SUPERSEDED)


def tell(rogue: Rogue, kind: str, path: str, honest: Bin, mended: Mapping[int, dict[str, Target]]) -> None:
    """Tell one lie; in the same publish the bins of earlier lies are put right."""
    number, targets = honest
    if kind == "two-bins":
        record = rogue.current.bins[number]
        rogue.publish({**mended, number: {}}, **{rogue.current.role(number): record.version})
    else:
        rogue.publish({**mended, number: {**targets, path: rogue.before(path)}})


def refusal(log: Path, kind: str, path: str) -> dict[str, str]:
    """Why the timestamper refused this lie: it names the file, or another root of the bins than was logged."""
    found: list[dict[str, str]] = []

    def refused() -> bool:
        for line in log.read_text("utf-8", "replace").splitlines():
            if '"timestamp refused"' in line:
                said = json.loads(line)
                if said["code"] == "bins-root" if kind == "two-bins" else path in said["error"]:
                    found.append({"code": said["code"], "kind": kind, "said": said["error"]})
        return bool(found)

    wait(refused)
    return found[-1]


def wait(what: Callable[[], bool]) -> None:
    """Until it is so."""
    deadline = time.monotonic() + SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError("the registry does not go on")
        time.sleep(0.05)


def main() -> None:
    """Tell every lie that was asked for, then put everything right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("lies", nargs="+", metavar="KIND=PATH")
    arguments = parser.parse_args()
    parts = open_parts(load(arguments.data))
    run = arguments.data / "run"
    url = json.loads((run / "timestamper.json").read_text("utf-8"))["url"]
    public = Overwriting(arguments.data / "public")
    rogue = Rogue(replace(parts, public=public, timestamper_url=url))
    asked = [
        (kind, path, rogue.demanded(path)) for kind, _, path in (lie.partition("=") for lie in arguments.lies)
    ]
    honest: dict[int, dict[str, Target]] = {}
    for kind, path, (number, targets) in asked:
        name = f"tuf/{rogue.current.bins[number].version}.{rogue.current.role(number)}.json"
        true = parts.public.read(name) or b""
        tell(rogue, kind, path, (number, targets), honest)
        print(json.dumps(refusal(run / "timestamper.log", kind, path)), flush=True)
        rogue.give_up()
        public.put_all({name: true})
        honest[number] = targets
    rogue.publish(honest)
    wait(lambda: (rogue.step(), rogue.open_state() is None)[1])
    timestamp = json.loads(public.read("tuf/timestamp.json") or b"")
    print(json.dumps({"timestamp": timestamp["signed"]["version"]}), flush=True)


if __name__ == "__main__":
    main()
