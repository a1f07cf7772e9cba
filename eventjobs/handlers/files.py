"""The protocol by which a context reads and stores artifacts."""

from pathlib import Path
from typing import Protocol


class ArtifactFiles(Protocol):
    """The artifacts on this machine. Both methods block."""

    def checked_path(self, sha256: str, size: int) -> Path:
        """The path of a stored file after a check of its content. Raises ArtifactDamaged."""
        ...

    def store(self, content: bytes | Path) -> tuple[str, int]:
        """Store *content*; its SHA-256 and size in bytes. Raises DiskFull, TooLarge, OSError."""
        ...
