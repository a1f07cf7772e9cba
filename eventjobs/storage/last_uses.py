"""When each API key was last used, in a small file: a use is no event. Only these times are lost
with the file.
"""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import orjson

from eventjobs.durability import replacement
from eventjobs.observability.logging import get_logger


class LastUses:
    """Times in microseconds since 1970, by key id. Newer ones than in the file are in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # a cancelled *write* goes on in its thread
        #: None until the file is read.
        self._stored: dict[str, int] | None = None
        self._newer: dict[str, int] = {}

    def add(self, uses: Mapping[str, int]) -> None:
        """Record later *uses*."""
        self._newer |= uses

    def drop(self, key_id: str) -> None:
        """Forget a key."""
        self._newer.pop(key_id, None)
        if self._stored is not None:
            self._stored.pop(key_id, None)

    async def all(self) -> dict[str, int]:
        """The time of each key. A file that is missing or damaged has none."""
        if self._stored is None:
            stored = await asyncio.to_thread(self._read)
            if self._stored is None:  # else a concurrent call has read it
                self._stored = stored
        return self._stored | self._newer

    async def write(self) -> None:
        """Write the newer times to the file, if there are any. A failure is logged."""
        if not self._newer:
            return
        uses = await self.all()
        newer, self._newer = self._newer, {}
        try:
            await asyncio.to_thread(self._replace, uses)
        except OSError as error:
            self._newer = newer | self._newer
            self._log("last uses of API keys not stored", error)
        else:
            self._stored = uses

    def _read(self) -> dict[str, int]:
        try:
            stored = orjson.loads(self._path.read_bytes())
            return {key_id: at_us for key_id, at_us in stored.items() if type(at_us) is int}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            self._log("last uses of API keys unknown", error)
            return {}

    def _replace(self, uses: Mapping[str, int]) -> None:
        with self._lock, replacement(self._path) as file:
            file.write(orjson.dumps(uses))

    def _log(self, what: str, error: Exception) -> None:
        get_logger("eventjobs").warning(what, path=str(self._path), error=str(error))
