"""Syncs files and folders, so that they survive a power cut.

A visible name may not be on the disk: a killed process may have created it and not synced it. So
existing files and folders are synced, too, and not only new ones.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Sync the content of a file, or the names in a folder. Raises OSError.

    The error of a file system that cannot sync folders is ignored.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Create *path* and its parents, durably. Raises OSError.

    A name is synced before anything is created below it. So of existing folders only the last name
    can be missing on the disk.
    """
    path = path.resolve()
    if not path.is_dir():
        make_directory(path.parent, 0o777)
        path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a folder that may not be listed is not a new one
        sync(path.parent)


def replace(new: Path, path: Path) -> None:
    """Rename *new*, a closed file, to *path*: after a power cut *path* is the old or the new one.

    Both are in one folder. Raises OSError.
    """
    sync(new)
    new.replace(path)
    sync(path.parent)


@contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """A new file, readable by its owner alone, that replaces *path* at the end of the block.

    After an exception *path* is unchanged. Raises OSError.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed
    try:
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
