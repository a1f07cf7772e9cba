"""A cache that forgets what was used least recently, bounded by number and by bytes."""

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Value | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def size(self, key: str) -> int:
        """The bytes *key* is kept with; 0 when it is not kept."""
        found = self._kept.get(key)
        return 0 if found is None else found[1]

    def put(self, key: str, value: Value, size: int) -> None:
        """Keep *value*, counted as *size* bytes, as the most recently used."""
        self.drop(key)
        self.grow(key, value, size)

    def grow(self, key: str, value: Value, more: int) -> None:
        """The same, with *more* bytes than what is kept as *key* until now, if anything."""
        found = self._kept.pop(key, None)
        self._kept[key] = value, more if found is None else found[1] + more
        self._bytes += more
        while len(self._kept) > self._entries_max or self._bytes > self._bytes_max:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone

    def drop(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
