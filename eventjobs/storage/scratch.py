"""Directories for the temporary files of a worker; a later one removes those of killed workers."""

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
            raise DataDirectoryError(f"{parent} belongs to another user; set another TMPDIR")
        descriptor = _claim_directory(parent, parent / name)
    except OSError as error:
        raise DataDirectoryError(f"{parent} cannot be used: {error}") from error
    try:
        yield parent / name
    finally:
        shutil.rmtree(parent / name, ignore_errors=True)
        os.close(descriptor)


def _claim_directory(parent: Path, own: Path) -> int:
    """Remove the directories of dead processes, and create and lock *own*."""
    gate = os.open(parent, os.O_RDONLY)
    try:
        # Serialize start-up: a directory that another worker has made but not locked yet would look
        # abandoned.
        fcntl.flock(gate, fcntl.LOCK_EX)
        for directory in filter(Path.is_dir, parent.iterdir()):
            with suppress(DirectoryLocked):
                descriptor = lock_directory(directory)
                shutil.rmtree(directory, ignore_errors=True)
                os.close(descriptor)
        return lock_directory(own)
    finally:
        os.close(gate)
