"""Whether an open log still has its names: what is written to a file without one is lost."""

from pathlib import Path

from eventjobs.errors import LogGone


class Names:
    """The file at *path* and its -wal, as they were when this was made. All methods block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._main = _identity(path)
        self.renew()

    def renew(self) -> None:
        """Take the -wal there is now for ours."""
        self._wal_found = _identity(self._wal)

    def check_main(self) -> None:
        """Raises LogGone where the file was removed or replaced."""
        if _identity(self._path) != self._main:
            raise LogGone(_told(self._path))

    def check(self, *, written: bool = False) -> None:
        """The same, also for its -wal, where there was one. *written* is told by the error."""
        if _identity(self._path) != self._main:
            raise LogGone(_told(self._path), written=written)
        if self._wal_found is not None and _identity(self._wal) != self._wal_found:
            raise LogGone(_told(self._wal), written=written)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _told(path: Path) -> str:
    return (
        f"{path} was removed or replaced while it was open: put it back, or stop the service and "
        "restore the log from a backup"
    )
