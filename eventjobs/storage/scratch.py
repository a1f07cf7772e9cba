"""A directory for the files of a process, which the next one clears when this one was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventjobs.errors import DataDirectoryError, DirectoryLocked
from eventjobs.storage.sqlite import lock_directory


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A new directory *name*, removed at the end. Raises DataDirectoryError."""
    parent = Path(tempfile.gettempdir()).absolute() / f"eventjobs-workers-{os.getuid()}"
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.is_symlink() or parent.stat().st_uid != os.getuid():
            raise DataDirectoryError(f"{parent} belongs to somebody else; set another TMPDIR")
        descriptor = _enter(parent, parent / name)
    except OSError as error:
        raise DataDirectoryError(f"{parent} cannot be used: {error}") from error
    try:
        yield parent / name
    finally:
        shutil.rmtree(parent / name, ignore_errors=True)
        os.close(descriptor)


def _enter(parent: Path, mine: Path) -> int:
    """Clear what dead processes left, and lock a directory of our own."""
    gate = os.open(parent, os.O_RDONLY)
    try:
        # One at a time: else one could take another's directory, not locked yet, for a dead one's.
        fcntl.flock(gate, fcntl.LOCK_EX)
        for each in filter(Path.is_dir, parent.iterdir()):
            with suppress(DirectoryLocked):
                descriptor = lock_directory(each)
                shutil.rmtree(each, ignore_errors=True)
                os.close(descriptor)
        return lock_directory(mine)
    finally:
        os.close(gate)
