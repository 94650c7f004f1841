"""Network copy: a journal that was asked for on a network file system, where WAL is not safe.

Rule: two files, and neither ever replaces what the other alone has on record.

    asked for: /net/home/me/night.db                   home, where it really lies: a local disk of this machine
       |  at its opening, if the copy changed and the home did not  -->  SQLite's backup into the home
       |  at rest and at exit, if the home changed  <--  SQLite's backup, beside the copy, then renamed onto it
       `- both changed: two machines. Each goes on with its own; this one's is copied to night-HOST.db from then on

Beside the home lies what was last copied, ``.copied``: the copy's stamp, which
is cheap to compare, and the digest of what both held then.  A stamp may change
when nothing else did (another server, a restored backup); the digest decides.

Homes are in the first of these that was itself found to be local: the user's
state folder, ``/var/tmp/ipybatch-UID``, the same in the folder for temporary
files.  Processes of one machine share a home: who has it open holds a shared
lock, and a copy comes in only where nobody else does.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from ipybatch.engine.data.fork import after_fork
from ipybatch.engine.store import browser_memory, registration, schema
from ipybatch.engine.store.atomic_write import draft_of
from ipybatch.engine.store.journal_file import real_path
from ipybatch.errors import JournalError, JournalLocked

REST_S = 2.0  # from the end of the last session until it is copied: a notebook may begin the next one
STALE_S = 3600.0  # a draft that old was left by a crash
_LOOKS = 3
_LINE = 1 << 20

_log = logging.getLogger(__name__)

# WAL needs shared memory, which these do not give: https://sqlite.org/wal.html (2026-11-22)
_UNSAFE = (
    "9p afs beegfs ceph cifs coda davfs fuse.blobfuse fuse.blobfuse2 fuse.ceph fuse.cephfs fuse.davfs "
    "fuse.gcsfuse fuse.glusterfs fuse.juicefs fuse.mount-s3 fuse.rclone fuse.s3fs fuse.sshfs glusterfs "
    "gpfs lustre ncpfs nfs nfs4 orangefs panfs pvfs2 smb2 smb3 smbfs wekafs"
)
_NETWORK = frozenset(_UNSAFE.split())


def home_of(asked: Path) -> Path:
    """Return where a journal lies: the path that it was asked for by, or one on a local disk that WAL is safe on.

    Args:
        asked: Without symbolic links.

    Raises:
        JournalError: It is on a network file system, and no local folder is to be found; or in a folder that a
            browser keeps, where SQLite does not work.
    """
    browser_memory.check(asked, "journal", "Leave out journal= and IPYBATCH_JOURNAL, and keep results with save()")
    kind = _file_system(asked)
    if kind not in _NETWORK:
        return asked
    for folder in _local_folders():
        return folder / _name_of(asked)
    where = (
        f"journal {asked} is on a network file system ({kind}), which could damage it, and no local folder was found"
    )
    msg = f"{where}: set IPYBATCH_JOURNAL or journal= to a place on a local disk"
    raise JournalError(msg)


def place_of(asked: Path) -> Path:
    """Return where a journal is to be read: its home, or where it was asked for while nobody has opened it here.

    Raises:
        JournalError: It has no home; see `home_of`.
    """
    home = home_of(asked)
    return home if home.exists() else asked


def _name_of(asked: Path) -> str:
    which = hashlib.blake2b(str(asked).encode(errors="replace"), digest_size=4).hexdigest()
    return f"{asked.stem}-{which}{asked.suffix}"


def _state_folder() -> Path:
    import platformdirs

    return platformdirs.user_state_path("ipybatch", appauthor=False)


def _local_folders() -> Iterator[Path]:
    """Yield the folders of this user that are on a local disk, or would be if they were made."""
    state = _state_folder()
    if _is_local(state):
        yield state
    if hasattr(os, "geteuid"):
        for shared in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108  # ours is checked to be ours
            own = registration.own_folder(shared)
            if _is_local(shared) and (registration.is_own(own) if os.path.lexists(own) else os.access(shared, os.W_OK)):
                yield own


def _is_local(path: Path) -> bool:
    try:
        return _file_system(real_path(path)) not in _NETWORK
    except OSError:
        return False


def _file_system(path: Path) -> str:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    kinds = _kinds(mounts)
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")


@functools.lru_cache(1)  # every look at a journal asks, and they hardly ever change
def _kinds(mounts: str) -> dict[Path, str]:
    """Return the kind of each file system by where it is mounted."""
    return {Path(_unescape(fields[1])): fields[2] for line in mounts.splitlines() if len(fields := line.split()) > 2}


def _unescape(mount: str) -> str:
    r"""Return a mount point as it is called: the kernel writes a space as ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount)


Stamp = tuple[int, int, int]


class _Copied(msgspec.Struct):
    """What was last copied, either way.

    Attributes:
        kept: The copy's path: the one asked for, or one of this machine's own.
        stamp: The copy's, then; None where there was none.
        digest: Of what both held then; "" for nothing.
        local: Stamps of the home and its log, then; empty when these had more than the copy.
        begun: Digest of what is being copied back: a kill may come between that and the end of it.
    """

    kept: str
    stamp: Stamp | None = None
    digest: str = ""
    local: list[Stamp | None] = []
    begun: str = ""


class NetworkCopy:
    """A journal's copy where it was asked for; how the two are kept alike.

    Attributes:
        home: Where the journal lies.
        asked: Where it was asked for.
    """

    def __init__(self, home: Path, asked: Path) -> None:
        self.home, self.asked = home, asked
        self._copied = _Copied(str(asked))
        self._copying = threading.Lock()
        self._timer: threading.Timer | None = None
        self._changes: Callable[[], int] = lambda: 0
        self._copied_changes: int | None = None  # None: the home may have changed before this process opened it

    @property
    def note(self) -> str:
        """What the user must know of it."""
        told = f"the journal lies in {self.home}: {self.asked} is on a network file system"
        if self._copied.kept == str(self.asked):
            return f"{told}, and is its copy whenever nothing runs"
        other = f"{self.asked} has what another machine recorded meanwhile: move {self.home} away to go on with that"
        return f"{told}; its copy is {self._copied.kept}, as {other}"

    def has_news(self) -> bool:
        """Say whether the copy may have changed since it was last copied; False where it cannot be seen."""
        self._read()
        try:
            return _stamp(Path(self._copied.kept)) not in (None, self._copied.stamp)
        except OSError as error:
            _log.debug("the copy of journal %s is not looked at: %s", self.home, error)
            return False

    def bring_in(self) -> None:
        """Take over what the copy has on record, if it changed since it was last copied and the home did not.

        Raises:
            JournalError: The copy is not a journal, or is written all the time.
            OSError: The home cannot be made, or there is none yet and the copy cannot be read.
        """
        self.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.home.parent.stat().st_uid != os.geteuid():
            raise PermissionError(13, "belongs to somebody else", str(self.home.parent))
        _hold(self.home)
        with self._copying, _locked(self.home):
            self._read()
            try:
                self._bring_in()
            except OSError as error:
                if not _has_content(self.home):
                    raise
                _log.warning("journal %s goes on without its copy: %s", self.home, error)
            if self._copied.digest and self._copied.local == self._local():
                self._copied_changes = self._changes()

    def watch(self, changes: Callable[[], int]) -> None:
        """Count the changes that this process makes to the home by what ``changes`` returns."""
        is_copied = self._copied_changes is not None
        self._changes = changes
        self._copied_changes = changes() if is_copied else None
        _copies[self.home] = self

    def copy_soon(self) -> None:
        """Copy it back in a moment, in a thread of its own."""
        before, self._timer = self._timer, threading.Timer(REST_S, self.copy_back)
        if before is not None:
            before.cancel()
        self._timer.daemon = True
        with suppress(RuntimeError):  # the interpreter is ending: `copy_all`
            self._timer.start()

    def copy_back(self) -> None:
        """Let the copy hold what the home does, if that changed; what goes wrong is logged, and tried again later."""
        try:
            with self._copying, _locked(self.home):
                changes = self._changes()
                if changes != self._copied_changes:
                    self._read()
                    self._copy_back()
                    self._copied_changes = changes
        except (OSError, sqlite3.Error, JournalError) as error:
            what = "journal %s is not copied to %s: %s; it is tried again when it is used next"
            _log.warning(what, self.home, self._copied.kept, error)

    def close(self) -> None:
        """Copy it back if it changed, and let the home go."""
        if self._timer is not None:
            self._timer.cancel()
        self.copy_back()
        _copies.pop(self.home, None)
        _let_go(self.home)

    def _bring_in(self) -> None:
        kept, source = Path(self._copied.kept), Path(self._copied.kept)
        now, is_new = _stamp(kept), not _has_content(self.home)
        if is_new and now is None:  # an earlier version moved it to the state folder, wherever that was
            source = _state_folder() / _name_of(self.asked)
        if _stamp(source) is None or source == self.home or (not is_new and now == self._copied.stamp):
            return
        with _alone(self.home) as is_alone:
            if not is_new and not is_alone:
                return  # another process of this machine goes on with it: told when it is copied back
            with self._fetched(source) as draft:
                theirs = _digest(draft)
                ours = "" if is_new else self._digest_of_home()
                if is_new or (ours == self._copied.digest and ours != theirs):
                    _pour(draft, self.home)
                    ours = theirs
                elif ours != theirs and theirs not in (self._copied.digest, self._copied.begun):
                    self._part()
                    return
            if source == kept:
                self._save(_Copied(str(kept), now, theirs, self._local() if ours == theirs else []))

    def _copy_back(self) -> None:
        kept, copied, local = Path(self._copied.kept), self._copied, self._local()
        with self._drafted() as draft:
            ours = _digest(draft)
            if ours == copied.digest:
                return
            now = _stamp(kept)
            if now not in (None, copied.stamp) and self._is_changed(kept):
                kept, now = self._part(), None
            self._save(msgspec.structs.replace(self._copied, begun=ours))
            _put(draft, kept, now)
        self._save(_Copied(str(kept), _stamp(kept), ours, local))

    def _is_changed(self, kept: Path) -> bool:
        try:
            with self._fetched(kept) as theirs:
                return _digest(theirs) not in (self._copied.digest, self._copied.begun)
        except JournalLocked:
            raise
        except JournalError:
            return True  # whatever it is now

    def _part(self) -> Path:
        """Let this machine's copy be another file from now on; return its path."""
        host = re.sub(r"[^\w.-]", "_", socket.gethostname()) or "this-machine"
        names = (f"{self.asked.stem}-{host}{number}{self.asked.suffix}" for number in ("", *range(2, 1000)))
        kept = next(path for name in names if not os.path.lexists(path := self.asked.with_name(name)))
        self._save(_Copied(str(kept)))
        _log.warning("%s", self.note)
        return kept

    @contextmanager
    def _fetched(self, source: Path) -> Iterator[Path]:
        """Give a draft of a journal on a network file system: its bytes, as its locks may hang or hold nobody."""
        parts = ("", "-wal", "-journal")
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=self.home.parent) as folder:
            draft = Path(folder, "journal")
            for _ in range(_LOOKS):
                before = [_stamp(source.with_name(source.name + part)) for part in parts]
                for part, stamp in zip(parts, before, strict=True):
                    draft.with_name(draft.name + part).unlink(missing_ok=True)
                    if stamp is not None:
                        shutil.copyfile(source.with_name(source.name + part), draft.with_name(draft.name + part))
                if before == [_stamp(source.with_name(source.name + part)) for part in parts]:
                    break
            else:
                msg = f"journal {source} is written all the time, on another machine: end what runs there"
                raise JournalLocked(msg)
            with closing(sqlite3.connect(draft, isolation_level=None)) as database:
                schema.check_ours(database, source)
                database.execute("PRAGMA journal_mode = DELETE")  # what a log held is in it now
            yield draft

    @contextmanager
    def _drafted(self) -> Iterator[Path]:
        """Give a draft of what the home holds."""
        with tempfile.TemporaryDirectory(prefix=".copied-", dir=self.home.parent) as folder:
            draft = Path(folder, "journal")
            _pour(self.home, draft)
            with closing(sqlite3.connect(draft, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = DELETE")  # whoever opens it there needs no shared memory
            yield draft

    def _digest_of_home(self) -> str:
        with self._drafted() as draft:
            return _digest(draft)

    def _local(self) -> list[Stamp | None]:
        # Closing a file that SQLite has open would drop its locks: they are looked at from outside.
        found = []
        for path in (self.home, self.home.with_name(f"{self.home.name}-wal")):
            told = path.stat() if path.exists() else None
            found.append(None if told is None else (told.st_size, told.st_mtime_ns, told.st_ino))
        return found

    def _read(self) -> None:
        try:
            told = json.loads(self._file.read_bytes())
            self._copied = msgspec.convert(told, _Copied)
        except FileNotFoundError:
            self._copied = _Copied(str(self.asked))
        except (ValueError, msgspec.ValidationError):  # half a file: the digests decide
            self._copied = _Copied(str(self.asked))

    def _save(self, copied: _Copied) -> None:
        self._copied = copied
        with draft_of(self._file) as draft:
            draft.write_text(json.dumps(msgspec.to_builtins(self._copied)), encoding="utf-8")

    @property
    def _file(self) -> Path:
        return self.home.with_name(f"{self.home.name}.copied")


def _pour(source: Path, target: Path) -> None:
    """Let one journal hold what another does, in one transaction, whoever has it open."""
    if not target.exists():
        os.close(os.open(target, os.O_CREAT | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(source)) as full, closing(sqlite3.connect(target)) as other:
        full.backup(other)


def _put(draft: Path, kept: Path, seen: Stamp | None) -> None:
    """Put a draft in the place of a copy that is still as it was seen; who makes the draft beside it has the turn."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_name(f".{kept.name}.copying")
    with suppress(FileNotFoundError):
        if time.time() - beside.stat().st_mtime > STALE_S:
            beside.unlink()
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, draft.open("rb") as full:
            shutil.copyfileobj(full, file, _LINE)
            file.flush()
            os.fsync(descriptor)
        if _stamp(kept) != seen:
            msg = f"{kept} was changed just now"
            raise JournalLocked(msg)
        beside.replace(kept)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _stamp(path: Path) -> Stamp | None:
    """Return what changes with a file; network file systems look for that when it is opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return found.st_size, found.st_mtime_ns, found.st_ino


def _digest(draft: Path) -> str:
    """Return the hash of a journal without a log, but for what SQLite counts in its head at every copy.

    Source: https://sqlite.org/fileformat2.html#the_database_header (2026-11-30).
    """
    digest = hashlib.blake2b(digest_size=16)
    with draft.open("rb") as file:
        head = bytearray(file.read(100))
        for first, last in ((18, 20), (24, 28), (40, 44), (92, 100)):
            head[first:last] = bytes(len(head[first:last]))
        digest.update(head)
        while piece := file.read(_LINE):
            digest.update(piece)
    return digest.hexdigest()


def _has_content(home: Path) -> bool:
    with suppress(FileNotFoundError):
        return home.stat().st_size > 0
    return False


_copies: dict[Path, NetworkCopy] = {}
_in_use: dict[Path, int] = {}  # descriptors that hold a shared lock


def _hold(home: Path) -> None:
    import fcntl

    if home not in _in_use:
        _in_use[home] = os.open(home.with_name(f"{home.name}.in-use"), os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(_in_use[home], fcntl.LOCK_SH)


def _let_go(home: Path) -> None:
    if home in _in_use:
        os.close(_in_use.pop(home))


@contextmanager
def _alone(home: Path) -> Iterator[bool]:
    """Say whether no other process has a home open, and keep them from it meanwhile."""
    import fcntl

    try:
        fcntl.flock(_in_use[home], fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_alone = True
    except BlockingIOError:
        is_alone = False
    try:
        yield is_alone
    finally:
        fcntl.flock(_in_use[home], fcntl.LOCK_SH)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Keep other processes of this machine from copying meanwhile."""
    import fcntl

    descriptor = os.open(home.with_name(f"{home.name}.copying"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@atexit.register
def copy_all() -> None:
    """Copy back what changed since it was last copied."""
    for copy in tuple(_copies.values()):
        copy.copy_back()


def _forget() -> None:
    """Copy nothing after a fork: the homes are the parent's; so are the locks, which closing does not give back."""
    _copies.clear()
    for home in tuple(_in_use):
        _let_go(home)


after_fork(_forget)
