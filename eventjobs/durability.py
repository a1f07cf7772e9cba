"""What a power cut may not take: files, folders and their names are synced before they count.

A name that can be seen is not yet on the disk: a process that was killed may have made it and not
synced it. So what is found is synced too, and not only what is made.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Put the content of a file, or the names in a folder, on the disk. Raises OSError.

    Where the file system cannot sync folders, it keeps names by itself or not at all.
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
    """Make *path* and its parents; the names of all of them are on the disk. Raises OSError.

    A name is synced before anything is made below it, so of what is found only the last can be
    missing on the disk.
    """
    path = path.resolve()
    if not path.is_dir():
        make_directory(path.parent, 0o777)
        path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a folder that may not be listed was there before
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
    """A file to be written, for its owner alone; it becomes *path* once it is whole.

    After an exception *path* is as it was. Raises OSError.
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
