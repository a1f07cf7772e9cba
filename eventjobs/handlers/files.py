"""The protocol by which a context reads and stores artifacts."""

from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """The files of jobs, on this machine. Both block, and are called in threads."""

    def checked(self, sha256: str, size: int) -> Path: ...
    def store(self, content: bytes | Path) -> tuple[str, int]: ...
