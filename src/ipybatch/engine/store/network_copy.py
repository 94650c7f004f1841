"""Network copy: a journal that was asked for on a network file system, where WAL is not safe.

It lies on a local disk of this machine: in the first of the user's state
folder, ``/var/tmp/ipybatch-UID`` and the same in the system's folder for
temporary files that was itself found to be local.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ipybatch.engine.store import registration
from ipybatch.errors import JournalError

# WAL needs shared memory, which these do not give: https://sqlite.org/wal.html (2026-11-22)
_NETWORK = frozenset(
    {
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "davfs",
            "glusterfs",
            "gpfs",
            "lustre",
            "ncpfs",
            "nfs",
            "nfs4",
        ),
        *("orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "wekafs"),
        *(
            "fuse.blobfuse",
            "fuse.blobfuse2",
            "fuse.ceph",
            "fuse.cephfs",
            "fuse.davfs",
            "fuse.gcsfuse",
            "fuse.glusterfs",
        ),
        *("fuse.juicefs", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)


def home_of(asked: Path) -> Path:
    """Return where a journal lies: the path that it was asked for by, or one on a local disk that WAL is safe on.

    Args:
        asked: Without symbolic links.

    Raises:
        JournalError: It is on a network file system, and no local folder is to be found.
    """
    kind = _file_system(asked)
    if kind not in _NETWORK:
        return asked
    which = hashlib.blake2b(str(asked).encode(errors="replace"), digest_size=4).hexdigest()
    for folder in _local_folders():
        return folder / f"{asked.stem}-{which}{asked.suffix}"
    where = (
        f"journal {asked} is on a network file system ({kind}), which could damage it, and no local folder was found"
    )
    msg = f"{where}: set IPYBATCH_JOURNAL or journal= to a place on a local disk"
    raise JournalError(msg)


def _local_folders() -> Iterator[Path]:
    """Yield the folders of this user that are on a local disk, or would be if they were made."""
    import platformdirs

    state = platformdirs.user_state_path("ipybatch", appauthor=False)
    if _is_local(state):
        yield state
    if hasattr(os, "geteuid"):
        for shared in (Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108  # ours is checked to be ours
            own = registration.own_folder(shared)
            if _is_local(shared) and (registration.is_own(own) if os.path.lexists(own) else os.access(shared, os.W_OK)):
                yield own


def _is_local(path: Path) -> bool:
    try:
        return _file_system(path.resolve()) not in _NETWORK
    except (OSError, RuntimeError):
        return False


def _file_system(path: Path) -> str:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kinds = {Path(_unescape(fields[1])): fields[2] for line in mounts if len(fields := line.split()) > 2}
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")


def _unescape(mount: str) -> str:
    r"""Return a mount point as it is called: the kernel writes a space as ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount)
