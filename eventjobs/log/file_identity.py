"""Detects that an open log was unlinked or replaced: writes to such a file are lost."""

from pathlib import Path

from eventjobs.errors import LogGone


class FileIdentity:
    """The identity (device, inode) of the file at *path* and of its -wal. All methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal_path = path.with_name(f"{path.name}-wal")
        self._database = _identity(path)
        self.accept_wal()

    def accept_wal(self) -> None:
        """Take the -wal that exists now for the log's own."""
        self._wal = _identity(self._wal_path)

    def check_database(self) -> None:
        """Raises LogGone when the database file was removed or replaced."""
        if _identity(self._path) != self._database:
            raise LogGone(_message(self._path))

    def check(self, *, written: bool = False) -> None:
        """Raises LogGone when the database file or its -wal was removed or replaced.

        *written* is passed on to the error: whether the statement at hand was executed.
        """
        if _identity(self._path) != self._database:
            raise LogGone(_message(self._path), written=written)
        if self._wal is not None and _identity(self._wal_path) != self._wal:
            raise LogGone(_message(self._wal_path), written=written)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _message(path: Path) -> str:
    return (
        f"{path} was removed or replaced while it was open: put it back, or stop the service and "
        "restore the log from a backup"
    )
