"""A search of all states of the job model, breadth first, with the trace of a violation."""

from array import array
from itertools import count
from typing import Any, NamedTuple

from .rules import Violation
from .transitions import BY_PEOPLE, Bounds, Decisions, Model, World, canonical


class SearchResult(NamedTuple):
    """The size of a search, and the first violation."""

    states: int
    steps: int
    violation: str | None
    #: the steps from the first state to the violation
    trace: list[str]
    complete: bool = True


def search(
    bounds: Bounds, decisions: Decisions | None = None, states_max: int | None = None
) -> SearchResult:
    """Search every state that can be reached, or the first *states_max* of them."""
    model = Model(bounds, decisions)
    worlds = [model.first()]
    numbers = {worlds[0]: 0}
    came_from: list[tuple[int, str]] = [(0, "")]
    leads_to, begins = array("I"), array("Q", [0])
    for number in count():
        if number == len(worlds) or number == states_max:
            break
        try:
            for label, after in model.steps(worlds[number]):
                world = canonical(after)
                target = numbers.setdefault(world, len(worlds))
                if target == len(worlds):
                    worlds.append(world)
                    came_from.append((number, label))
                if label not in BY_PEOPLE:
                    leads_to.append(target)
        except Violation as error:
            trace = [*_trace(came_from, number), f"then {error.what}"]
            return SearchResult(len(worlds), len(leads_to), str(error), trace)
        begins.append(len(leads_to))
    complete = len(begins) > len(worlds)
    stuck = _stuck(model, worlds, leads_to, begins) if complete else None
    trace = [] if stuck is None else _trace(came_from, stuck)
    violation = None if stuck is None else "it never ends without a person's step"
    return SearchResult(len(worlds), len(leads_to), violation, trace, complete)


def _stuck(model: Model, worlds: list[World], leads_to: Any, begins: Any) -> int | None:
    """The first state from which no path without steps of people leads to the end of all jobs."""
    ends = bytearray(map(model.is_finished, worlds))
    changed = True
    while changed:
        changed = False
        for number in range(len(worlds) - 1, -1, -1):
            if not ends[number] and any(
                ends[each] for each in leads_to[begins[number] : begins[number + 1]]
            ):
                ends[number] = changed = True
    stuck = ends.find(0)
    return None if stuck < 0 else stuck


def _trace(came_from: list[tuple[int, str]], number: int) -> list[str]:
    trace = []
    while number:
        number, label = came_from[number]
        trace.append(label)
    return trace[::-1]
