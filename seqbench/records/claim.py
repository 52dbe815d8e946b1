"""Who works on a run: one process at a time, and a dead one's claim ends with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from seqbench.cluster.here import here
from seqbench.errors import RecordError, Unwritable
from seqbench.records.store import reason_of

NAME = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # what file systems answer then
BEAT = 20.0  # seconds between two signs of life where the kernel has no locks
SETTLE = 0.2  # seconds in which one who takes over from the dead may have taken our file for theirs
SILENCE = 300.0  # seconds without one, after which a process of another machine counts as dead
HOLDER = re.compile(  # what a lock file says without the kernel's help
    r"process (?P<process>\d+) on (?P<host>\S+)( in job (?P<job>\S+) start (?P<start>\d+))?,"
    r" started (?P<started>[\d.]+), "
)
_held: set[int] = set()  # descriptors of this process's claims


def _let_go() -> None:
    """In a child: its copy of the lock would outlive the parent, as long as a worker process needs to notice."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class Claimed(RecordError):
    """Another process works on the run."""


@contextmanager
def claim(folder: Path) -> Iterator[str | None]:
    """Hold `folder/lock`; gives who held it before and died, `process 12 on host`, or None.

    Raises Claimed where another live process holds it, RecordError where nothing can be locked.

    The kernel's lock (flock), so that it is gone with the process that held it, however that ended; the file says
    who it is. Made and removed under the lock, hence checked for being the same file after locking. Where the file
    system has no such locks (some network ones): a file that only one process can make, with signs of life.
    """
    path = folder / NAME
    try:
        descriptor = _lock(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise Unwritable(
                f"{path}: cannot be locked here ({reason_of(error)}); use another results=FOLDER"
            ) from None
        with _made(path) as before:
            yield before
        return
    _held.add(descriptor)
    try:
        before = os.pread(descriptor, 200, 0).decode(errors="replace") or None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _me().encode(), 0)
        yield before
    finally:
        if descriptor in _held:  # no child that comes by here
            with contextlib.suppress(OSError):
                path.unlink()
                folder.rmdir()  # where nothing came of it
            _held.remove(descriptor)
            os.close(descriptor)


def holder(folder: Path) -> str | None:
    """Which live process holds a folder's claim, `process 12 on host`; None for none. Leaves all as it is."""
    try:
        made = _holder(folder / f"{NAME}.x")
        if made is not None and not _dead(*made):
            return made[0].partition(", started")[0] or "another process"
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _me() -> str:
    start = here()
    job = f" in job {start.job} start {start.restarts + 1}" if start else ""
    return f"process {os.getpid()} on {socket.gethostname()}{job}"


def _claimed(path: Path, holder: str) -> Claimed:
    return Claimed(f"{path.parent}: {holder or 'another process'} works on this run; wait for it, or stop it")


def _open(path: Path, flags: int) -> int:
    """Open a lock file, its folder made; Unwritable where that can't be."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
        except FileNotFoundError:
            continue  # somebody has just removed the empty folder
        except FileExistsError:
            if flags and path.exists():
                raise
            if path.parent.is_dir() or not path.parent.exists():
                continue  # somebody has removed the folder, or the file, in the meantime
            raise Unwritable(f"results: {path.parent} cannot be written to (file exists)") from None
        except OSError as error:
            raise Unwritable(f"results: {path.parent} cannot be written to ({reason_of(error)})") from None


def _lock(path: Path) -> int:
    """The descriptor of the locked file. Raises Claimed, and OSError where the file system has no locks."""
    while True:
        descriptor = _open(path, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            os.close(descriptor)
            raise _claimed(path, holder) from None
        except FileNotFoundError:
            pass  # whoever held it has just removed it: take the next one
        except OSError as error:
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                path.unlink(missing_ok=True)
            raise
        os.close(descriptor)


# -- without locks ---------------------------------------------------------------------------------------------------
@contextmanager
def _made(path: Path) -> Iterator[str | None]:
    """Hold a lock by having made its file, which is atomic on network file systems, too (open(2), O_EXCL).

    It says process, host and a number of its own. A thread renews its time; who finds it judges that by the time of a
    file made now, so the server's clock is compared with itself.
    """
    own = f"{_me()}, started {psutil.Process().create_time():.2f}, {secrets.token_hex(8)}"
    before: str | None = None
    while True:
        try:
            descriptor = _open(path.with_name(f"{NAME}.x"), os.O_EXCL)
        except FileExistsError:
            found = _holder(path.with_name(f"{NAME}.x"))
            if found is None:
                continue  # gone meanwhile
            holder, silent = found
            if not _dead(holder, silent):
                raise _claimed(path, holder.partition(", started")[0]) from None
            if _taken_away(path.with_name(f"{NAME}.x"), holder):
                before = holder.partition(", started")[0] or "a process"
            continue
        break
    path = path.with_name(f"{NAME}.x")
    os.write(descriptor, own.encode())
    os.fsync(descriptor)
    os.close(descriptor)
    time.sleep(SETTLE)
    if (found := _holder(path)) is None or found[0] != own:
        raise _claimed(path, found[0].partition(", started")[0] if found else "")
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True, name="claim")
    thread.start()
    try:
        yield before
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            if path.read_text() == own:
                path.unlink()
            path.parent.rmdir()


def _holder(path: Path) -> tuple[str, float] | None:
    """What a lock file says, and the seconds since its last sign of life; None where it is gone."""
    probe = path.with_name(f"{NAME}.{secrets.token_hex(8)}")
    try:
        text = path.read_text()
        probe.touch()
        return text, probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _dead(holder: str, silent: float) -> bool:
    """Whether who made a lock file is gone: known of this machine's processes, judged by silence of others'."""
    found = HOLDER.match(holder)
    if found and found["host"] == socket.gethostname():
        try:
            process = psutil.Process(int(found["process"]))
            return process.status() == psutil.STATUS_ZOMBIE or bool(
                abs(process.create_time() - float(found["started"])) > 1
            )
        except psutil.NoSuchProcess:
            return True
    own = here()
    if found and own and found["job"] == own.job and int(found["start"]) <= own.restarts:
        return True  # an earlier start of this very job: the scheduler has ended it before it began this one
    return silent > SILENCE


def _taken_away(path: Path, holder: str) -> bool:
    """Remove a dead one's file. By renaming, which one of several succeeds in; a live one's is put back."""
    aside = path.with_name(f"{NAME}.{secrets.token_hex(8)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    try:
        if aside.read_text() == holder:
            return True
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        return False
    finally:
        aside.unlink()
