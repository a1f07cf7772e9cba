"""A cache that drops the least recently used entries, bounded by number and by bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """At most *entries_max* entries and *bytes_max* bytes.

    An entry counts *entry_bytes*, what the smallest one takes in memory, and the size that its
    caller states, what it has beyond that.
    """

    def __init__(self, entries_max: int, bytes_max: int, entry_bytes: int = 0) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entry_bytes = entry_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Value | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def size(self, key: Hashable) -> int:
        """The bytes that the entry counts; 0 without one."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry[1]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Store *value* as the most recently used entry. *size* is that beyond *entry_bytes*."""
        self.drop(key)
        self.grow(key, value, size)

    def grow(self, key: Hashable, value: Value, more: int) -> None:
        """Replace the entry by *value*, which has *more* bytes than it; without one as *put*."""
        entry = self._entries.pop(key, None)
        if entry is None:
            more += self._entry_bytes
        self._entries[key] = value, more if entry is None else entry[1] + more
        self._bytes += more
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._bytes -= dropped

    def drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]

    def drop_where(self, matches: Callable[[Value], bool]) -> None:
        """Drop the entries whose values match."""
        for key in [key for key, (value, _) in self._entries.items() if matches(value)]:
            self.drop(key)
