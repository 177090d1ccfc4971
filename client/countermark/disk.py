"""Disk: replacing a file as a whole, creating one exactly once, swapping a folder, and taking turns.

    replace_file(home / "timeline.json", data)     # readers see the old bytes or the new, never a mixture
    create_file(out / "key.json", data)            # FileExistsError instead of overwriting
    with locked(home / "lock"): ...                # one process at a time, whoever dies lets go

Three promises. A `replace_file` that returned is on the disk, not in a cache of the kernel. A reader without
the lock never sees half a file. A process killed anywhere leaves either the old state or the new one.

What it does not promise: that nobody else wrote the folder. Who can write our folders can make us forget;
that is why everything read back from them is checked again where it matters (trust.py).

`shutil` and `tempfile` are imported where something is written: an offline check only reads, and starts faster.

Windows differs in three ways, each behind a function here: locks (`_acquire`); renaming, removing and opening fail
for as long as somebody, a virus scanner for example, has the file open, and are tried again for a while
(`_patiently`); names that are devices, or hold what no name may (`safe_name`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from countermark.digest import sha256
from countermark.errors import NetworkError, UsageError
from countermark.limits import LOCK_MAX_BYTES

LOCK_TIMEOUT = 60.0  # seconds; a verification holds the lock for milliseconds, a cold one for seconds
LOCK_POLL = 0.02  # seconds between two tries
MOVE_PATIENCE = 2.0  # seconds; on Windows a reader lets go within milliseconds, a scanner within a second
NAME_MAX_BYTES = 255  # of a file's name, on every file system we know
NAME_TAIL = 32  # characters that stay at the end of one that is too long: its endings
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{n}" for port in ("com", "lpt") for n in "123456789"}
)
PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(
    os, "O_NONBLOCK", 0
)  # to open: no link, and no waiting for a pipe
FORBIDDEN = frozenset(
    '<>:"/\\|?*%'
)  # in a name on Windows or elsewhere; `%` begins what stands in their place


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` as the whole new content of `path`, durably, or leave the old content untouched."""
    temporary = _write_beside(path, data, mode)
    try:
        # If we stop here a stray temporary file stays behind; the old content is untouched.
        _moved(Path(temporary), path)
    except BaseException as error:
        remove_file(Path(temporary))
        if isinstance(error, OSError) and path.is_dir():  # each system has its own error for that
            raise UsageError(f'"{path}" is a directory') from None
        raise
    _sync_folder(path.parent)


def rewrite_file(path: Path, old: bytes, new: bytes, *, mode: int = 0o644) -> None:
    """Replace a file of somebody else's that was read as `old`: where a link leads, with the rights it had.

    `mode` is for one that is not there yet (`old` is empty). UsageError: somebody has changed it since.
    """
    target = path.resolve()
    found = read_file(target, max_bytes=LOCK_MAX_BYTES) or b""
    if found != old:
        raise UsageError(f'"{path}" was changed meanwhile', hint="nothing was written; do it again")
    with contextlib.suppress(FileNotFoundError):
        mode = target.stat().st_mode & 0o777
    replace_file(target, new, mode=mode)


def safe_name(name: str) -> str:
    """A name for a file on every platform, for a name that came from elsewhere; most stay as they are.

        aux.json -> -aux.json      a:b -> a%3Ab      ends. -> ends%2E      x * 300 -> xxx...~2d711642b726b044xxx...

    Devices of Windows get a dash in front. What some system allows in no name, and what is not ASCII, is written as
    `%` and hex digits: a colon would begin a stream beside the file, a slash lead out of the folder, and a raised 1
    makes a device of `COM`, too. What is too long loses its middle to a digest. Two names never become one, but where
    folders ignore case: names that differ in case alone are their maker's to avoid.
    """
    last = len(name) - 1
    fine = (c if c.isascii() and c.isprintable() and c not in FORBIDDEN else _escaped(c) for c in name)
    safe = "".join(_escaped(c) if at == last and c in ". " else c for at, c in enumerate(fine))
    if safe.partition(".")[0].strip("- ").lower() in DEVICES:
        safe = f"-{safe}"  # also before dashes, so that no other name is there already
    if len(safe) > NAME_MAX_BYTES:
        middle = f"~{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
        safe = safe[: NAME_MAX_BYTES - NAME_TAIL - len(middle)] + middle + safe[-NAME_TAIL:]
    return safe or "%"


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def remove_file(path: Path) -> None:
    """Remove a file if it is there; on Windows as soon as nobody has it open."""
    _patiently(lambda: path.unlink(missing_ok=True))


def _is_windows() -> bool:
    return sys.platform == "win32"


def _patiently(act: Callable[[], Any], *, hopeless: Path | None = None) -> Any:
    """Do it; on Windows again and again for a while, unless a folder is where a file should be (`hopeless`)."""
    deadline = time.monotonic() + MOVE_PATIENCE
    while True:
        try:
            return act()
        except PermissionError:
            if not _is_windows() or time.monotonic() >= deadline or (hopeless and hopeless.is_dir()):
                raise
            time.sleep(LOCK_POLL)


def _moved(source: Path, target: Path) -> None:
    """Rename, in the place of a file that is there."""
    _patiently(lambda: source.replace(target), hopeless=target)


def create_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to a file that must not exist yet; UsageError when it does. Never overwrites."""
    temporary = _write_beside(path, data, mode)
    try:
        # A hard link fails when the name exists, which a rename would not.
        os.link(temporary, path)
    except FileExistsError:
        raise UsageError(
            f'"{path}" already exists', hint="nothing is overwritten; choose another name"
        ) from None
    except OSError:
        # A file system without hard links: an exclusive create, at worst a truncated file after a crash.
        _create_exclusively(path, data, mode)
    finally:
        remove_file(Path(temporary))
    _sync_folder(path.parent)


def read_file(path: Path, *, max_bytes: int) -> bytes | None:
    """The content of `path`; None when there is no such file; UsageError when it is larger than allowed."""
    try:
        with _patiently(lambda: path.open("rb"), hopeless=path) as stream:
            data: bytes = stream.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_dir():
            raise UsageError(f'"{path}" is a directory') from None
        raise UsageError(f'cannot read "{path}": {error.strerror}') from None
    if len(data) > max_bytes:
        raise UsageError(f'"{path}" is larger than {max_bytes} bytes')
    return data


def read_own(path: Path, *, max_bytes: int) -> bytes | None:
    """The same for a file that we wrote: None only where nothing is, never where a link leads nowhere.

    Memory on a disk that is not there now is no empty memory; and a pipe would keep us waiting.
    """
    if path.is_file():
        return read_file(path, max_bytes=max_bytes)
    if not os.path.lexists(path):
        return None
    kind = "a link that leads to no file" if path.is_symlink() else "no file"
    raise UsageError(f'"{path}" is {kind}', hint="it was put there by somebody else: move it away")


def read_plain(path: Path, *, max_bytes: int) -> bytes | None:
    """The same for a file of a cache: None for one that cannot be read, or for whatever else is in its place.

    A link is not followed, a pipe not waited for. A cache has hundreds, so they are read without what a stream takes.
    """
    try:
        if _is_windows():
            return read_file(path, max_bytes=max_bytes) if stat.S_ISREG(path.lstat().st_mode) else None
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size <= max_bytes:
            data = os.read(descriptor, found.st_size + 1)
            if len(data) == found.st_size:  # it is whole, and nobody is writing it
                return data
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return read_file(path, max_bytes=max_bytes)


@contextlib.contextmanager
def working_copy(
    folder: Path, *, within: Sequence[str] = (), shared: Callable[[str], bool] = lambda name: False
) -> Iterator[Path]:
    """A private copy of `folder` to work on; it replaces `folder` only when the block ends without an error.

    The caller holds a lock. On an error the copy is thrown away and `folder` keeps its bytes. See `copy_files` for
    what is copied.
    """
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    recover_swap(folder)
    copy = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=_made(folder.parent)))
    try:
        copy_files(folder, copy, within, shared)
        yield copy
        _swap(copy, folder)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def copy_files(
    folder: Path, copy: Path, within: Sequence[str], shared: Callable[[str], bool] = lambda name: False
) -> None:
    """Copy the plain files of `folder`, and of the folders named `within` it, as far as they can be read.

    A cache holds nothing else. What somebody put in a file's place (a link, a folder, a pipe) is left out, like a
    file that is not there: so it is neither followed nor waited for, and the next swap mends it.

    Files with `shared` names are given a second name instead, where the file system can: for those that are many,
    never written in place, and checked whenever they are read.
    """
    import shutil  # noqa: PLC0415

    for source, target in ((folder / name, copy / name) for name in ("", *within)):
        if source.is_symlink() or not source.is_dir():
            continue
        target.mkdir(mode=0o700, exist_ok=True)
        for path in source.iterdir():
            if not path.is_symlink() and path.is_file():
                if shared(path.name) and _linked(path, target / path.name):
                    continue
                with contextlib.suppress(PermissionError):
                    shutil.copy2(path, target / path.name, follow_symlinks=False)


def _linked(path: Path, name: Path) -> bool:
    try:
        os.link(path, name)
    except OSError:
        return False
    return os.access(name, os.R_OK)


def recover_swap(folder: Path) -> None:
    """Finish what a crash in `_swap` left half done: the old folder returns if the new never arrived."""
    import shutil  # noqa: PLC0415

    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not os.path.lexists(folder):
        _moved(old, folder)
    _remove(old)
    for stray in folder.parent.glob(f".{folder.name}.*"):  # copies of a process that was killed
        shutil.rmtree(stray, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if os.path.lexists(folder):
        _moved(folder, old)
    # If we stop here the folder is gone and `.old` holds it; recover_swap() puts it back.
    _moved(new, folder)
    # Committed. If we stop here recover_swap() removes the old one.
    _remove(old)
    _sync_folder(folder.parent)


def _remove(path: Path) -> None:
    """Remove a folder, or what stands in its place; a link, not what it leads to.

    What stays of a folder is in the way of the next swap, which tries again.
    """
    import shutil  # noqa: PLC0415

    if path.is_symlink() or not path.is_dir():
        remove_file(path)
    else:
        with contextlib.suppress(OSError):
            _patiently(lambda: shutil.rmtree(path))


@contextlib.contextmanager
def locked(path: Path, *, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock file `path` alone; the operating system frees it however the process ends."""
    _made(path.parent)
    try:  # never through a link: that would make a file wherever it leads
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise UsageError(f'cannot lock "{path}": {error.strerror}') from None
    try:
        deadline = time.monotonic() + timeout
        while not _acquire(descriptor):
            if time.monotonic() >= deadline:
                raise NetworkError(
                    f'another process holds "{path}" for more than {timeout:.0f} s',
                    hint="wait for it and try again",
                )
            time.sleep(LOCK_POLL)
        yield
    finally:
        # Closing lets go of the lock on both platforms. The file itself stays: deleting it would let a
        # waiting process lock a name that no longer leads anywhere.
        os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def config_home(environment: dict[str, str] | None = None) -> Path:
    """Where this user's pinned roots, keys and timelines live: COUNTERMARK_HOME or the platform's place."""
    env = os.environ if environment is None else environment
    if env.get("COUNTERMARK_HOME"):
        return Path(env["COUNTERMARK_HOME"])
    if sys.platform == "win32":
        base = Path(env.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "countermark"


def _write_beside(path: Path, data: bytes, mode: int) -> str:
    import tempfile  # noqa: PLC0415

    # The beginning of the name is for who finds it after a crash; all of it could be too long with what is added.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:32]}.", dir=_made(path.parent))
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(mode)
    except BaseException:
        remove_file(Path(temporary))
        raise
    return temporary


def _create_exclusively(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    except FileExistsError:
        raise UsageError(
            f'"{path}" already exists', hint="nothing is overwritten; choose another name"
        ) from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
