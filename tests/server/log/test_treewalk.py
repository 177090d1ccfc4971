"""fsck of any log: over HTTP, of any size, with one tile of each level in memory; each altered file is named."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from countermark.errors import EvidenceError, NetworkError
from countermark.fetch import HttpFetcher
from countermark.serving import Request, Response, in_background
from countermark.tlog.checkpoint import Checkpoint
from countermark.tlog.note import sign_note
from countermark.tlog.tile import WIDTH, Tile
from countermark_server.log.httpcheck import Checked, check_url
from countermark_server.log.treewalk import Counts, walk
from tests.log_samples import LOG, LOG_PQ, ORIGIN, STRANGER, TIME, log_files, signed

SIZE = WIDTH * WIDTH + WIDTH + 5  # three levels, a partial tile on each
SMALL = 2 * WIDTH + 5


def stored(size: int) -> dict[str, bytes]:
    """Every file of a log of so many short entries, by path."""
    return log_files(size) | {"checkpoint": signed([LOG, LOG_PQ], size=size).format()}


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    def answer(request: Request) -> Response:
        raw = files.get(request.path.removeprefix("/log/"))
        return Response(404) if raw is None else Response(200, raw, "application/octet-stream")

    with in_background(answer) as url:
        yield f"{url}/log"


def checked(files: dict[str, bytes]) -> Checked:
    said: list[str] = []
    with served(files) as url:
        return check_url(url, [LOG.vkey, LOG_PQ.vkey], HttpFetcher(), say=said.append)


def test_a_sound_log_is_read_whole_over_http() -> None:
    """Every bundle, every tile of every level, nothing to say."""
    files = stored(SMALL)
    found = checked(files)
    assert found.findings == () and found.counts == Counts(SMALL, 3, 4)
    assert found.counts.bundles + found.counts.tiles + 1 == len(files)
    assert checked(stored(0)).findings == () == checked(stored(1)).findings == checked(stored(WIDTH)).findings


def test_every_altered_file_is_named() -> None:
    """One bit in, one byte less, or the file gone: whichever file it is, the first finding names it."""
    files = stored(SMALL)
    for path in sorted(files.keys() - {"checkpoint"}):
        raw = files[path]
        for mutant in (raw[:-1] + bytes([raw[-1] ^ 1]), raw[:-1], raw + b"\0", b"", None):
            altered = {name: other for name, other in files.items() if name != path}
            found = checked(altered if mutant is None else altered | {path: mutant})
            # An altered entry is told of the tile that it no longer hashes to.
            named = path.replace("entries", "0")
            assert found.findings and any(name in found.findings[0] for name in (path, named)), (path, mutant)
    again = checked(files)
    assert again.findings == ()


def test_a_large_log_is_checked_with_little_memory() -> None:
    """At 65,797 entries three levels are climbed, and only a fraction of the log is ever held."""
    files = stored(SIZE)

    def fetch(tile: Tile) -> bytes | None:
        return files.get(tile.path())

    head = Checkpoint.parse(files["checkpoint"].decode().split("\n\n")[0] + "\n")
    counts, findings = Counts(), list[str]()
    tracemalloc.start()
    try:
        for _ in walk(fetch, head, counts, findings.append):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not findings and counts.entries == SIZE and counts.tiles == 258 + 2 + 1
    assert peak < sum(map(len, files.values())) / 10
    for tile in (Tile(1, 0, WIDTH), Tile(2, 0, 1)):
        raw = files[tile.path()]
        files[tile.path()] = bytes([raw[0] ^ 1]) + raw[1:]
        findings.clear()
        for _ in walk(fetch, head, Counts(), findings.append):
            pass
        assert findings and findings[0].startswith(tile.path()), tile
        files[tile.path()] = raw


def test_partial_tiles_that_a_grown_log_dropped_are_read_from_full_ones() -> None:
    """The checkpoint is from before: the tiles of its right edge are gone, the full ones begin alike."""
    grown, before = stored(3 * WIDTH), stored(SMALL)
    assert checked(grown | {"checkpoint": before["checkpoint"]}).findings == ("tile/1/000.p/2: is missing",)
    grown |= {"checkpoint": before["checkpoint"], "tile/1/000.p/2": before["tile/1/000.p/2"]}
    assert checked(grown).findings == ()


def test_another_tree_than_the_signed_one_is_found() -> None:
    """All files agree with one another, and lead to another root than the checkpoint says."""
    files = stored(SMALL)
    head = Checkpoint(ORIGIN, SMALL, b"\7" * 32)
    (found,) = checked(
        files | {"checkpoint": sign_note(head.text(), [LOG, LOG_PQ], time=TIME).format()}
    ).findings
    assert "lead to the root hash" in found


def test_a_checkpoint_without_a_key_s_line_is_refused() -> None:
    """Stripped, unsigned or another log's: nothing else is asked for."""
    files = stored(SMALL)
    head = files["checkpoint"].decode().split("\n\n")[0] + "\n"
    for raw in (
        b"",
        b"junk",
        sign_note(head, [LOG], time=TIME).format(),
        sign_note(head, [STRANGER], time=TIME).format(),
    ):
        with pytest.raises(EvidenceError):
            checked(files | {"checkpoint": raw})


def test_a_server_that_is_down_is_no_finding() -> None:
    """Who can't be reached is not accused."""
    with served({}) as url:
        pass
    with pytest.raises(NetworkError):
        check_url(url, [LOG.vkey], HttpFetcher(), say=print)


def test_the_command_reads_a_log_over_http() -> None:
    """Findings on stdout, exit 7; wrong usage is one sentence."""
    files = stored(SMALL)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "countermark_server.cli", "fsck", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    with served(files) as url:
        asked = ("--url", url, "--vkey", LOG.vkey.format(), "--vkey", LOG_PQ.vkey.format())
        done = run(*asked, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["origin"], told["tree_size"], told["findings"]) == (ORIGIN, SMALL, [])
        files["tile/0/001"] = bytes(WIDTH * 32)
        done = run(*asked)
        assert done.returncode == 7 and "tile/0/001: 256 of its hashes" in done.stdout, done.stderr
        for wrong in (("--url", url), ("--vkey", "x"), (*asked[:2], "--vkey", "x"), (*asked, "--data", "x")):
            done = run(*wrong)
            assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
