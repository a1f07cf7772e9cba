"""What an object holds, to see that nothing is left there of what has ended."""

import asyncio
import gc
from collections import Counter
from types import BuiltinFunctionType, FunctionType, ModuleType

_VALUES = (int, float, str, bytes, type, type(None), FunctionType, BuiltinFunctionType, ModuleType)
#: They hold the whole program.
_ENDS = (asyncio.AbstractEventLoop, asyncio.Future)


def reachable(root: object) -> Counter[str]:
    """How many objects of each class *root* holds, also through others. Values do not count."""
    seen: dict[int, object] = {}
    queue = [root]
    while queue:
        each = queue.pop()
        if id(each) not in seen and not isinstance(each, _VALUES):
            seen[id(each)] = each
            queue += () if isinstance(each, _ENDS) else gc.get_referents(each)
    return Counter(type(each).__name__ for each in seen.values())
