"""Directories with the files of jobs, as another job service keeps them.

A job is in `ID.json`, or has its history in `ID/events.log`. All functions block.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_JSON = ".json"
#: The name of the file with the history of a job.
HISTORY = "events.log"
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class FoundFile(NamedTuple):
    """A file of a job, not read yet."""

    #: Empty for a file whose name has no id.
    job_id: str
    path: Path
    #: When it was written.
    modified_us: int
    #: Changes with the content. Empty where the file could not be looked at.
    stamp: tuple[int, ...]
    #: Why it cannot be read; None when nothing is known against it.
    fault: str | None = None

    @property
    def has_history(self) -> bool:
        return self.path.name == HISTORY

    @property
    def name(self) -> str:
        """The end of its path, from the name of its directory on."""
        return "/".join(self.path.parts[-3 if self.has_history else -2 :])


class JobDirectories:
    """The *directories*, and the files in them of up to *bytes_max* bytes.

    Symbolic links in a directory are not followed; a directory itself may be one.
    """

    def __init__(self, directories: Sequence[Path], bytes_max: int) -> None:
        self.directories = directories
        self._bytes_max = bytes_max

    def find(self, job_id: str) -> FoundFile | None:
        """The file of *job_id*, a UUID in lower case with hyphens: the newest, if there are two."""
        assert _ID.fullmatch(job_id), job_id
        return newest(
            file
            for directory in self.directories
            for path in (directory / f"{job_id}{_JSON}", directory / job_id / HISTORY)
            if (file := _look_at(job_id, path)) is not None
        )

    def scan(self) -> Iterator[FoundFile]:
        """All files of jobs, in the order of the directories. Raises OSError for a directory."""
        for directory in self.directories:
            with os.scandir(directory) as entries:
                for entry in entries:
                    path = directory / entry.name
                    name = entry.name.removesuffix(_JSON)
                    if name == entry.name:
                        path /= HISTORY
                        if not _ID.fullmatch(name):
                            continue
                    job_id = name.lower() if _ID.fullmatch(name) else ""
                    if (file := _look_at(job_id, path)) is not None:
                        yield file if job_id else file._replace(fault="its name is no UUID")

    def read(self, file: FoundFile) -> bytes:
        """The content. Raises ValueError for a file that is none of a job, and OSError."""
        if file.fault is not None:
            raise ValueError(file.fault)
        with os.fdopen(_open(file), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise ValueError("it is not a regular file")
            content = opened.read(self._bytes_max + 1)
        if len(content) > self._bytes_max:
            raise ValueError(f"it has more than {self._bytes_max} bytes")
        return content


def _open(file: FoundFile) -> int:
    """A descriptor of the file, to which no symbolic link in its directory leads."""
    links = os.O_NOFOLLOW if file.has_history else 0
    parent = os.open(file.path.parent, os.O_RDONLY | os.O_DIRECTORY | links)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(file.path.name, flags, dir_fd=parent)
    finally:
        os.close(parent)


def newest(files: Iterator[FoundFile]) -> FoundFile | None:
    """The file that was written last; the first of several such."""
    return max(files, key=lambda each: each.modified_us, default=None)


def _look_at(job_id: str, path: Path) -> FoundFile | None:
    try:
        status = path.lstat()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        return FoundFile(job_id, path, 0, (), f"it cannot be read: {error.strerror}")
    fault = None if stat.S_ISREG(status.st_mode) else "it is not a regular file"
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return FoundFile(job_id, path, max(0, status.st_mtime_ns // 1000), stamp, fault)
