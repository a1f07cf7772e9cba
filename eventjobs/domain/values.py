"""Values: dataclasses that are never changed, and are made often."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(*, frozen, slots=False):
        """A dataclass that is frozen for the type checker alone, with the hash of a frozen one.

        At run time a frozen dataclass sets each field by a call of object.__setattr__, which makes
        it three to four times as slow to construct.
        """
        assert frozen
        return dataclass(slots=slots, unsafe_hash=True)
