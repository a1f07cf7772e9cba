"""A search of all states of the job model, breadth first, with the trace of a violation."""

from array import array
from itertools import count
from typing import Any, NamedTuple

from .job_model import BY_PEOPLE, Bounds, Decisions, Model, World, _in_order
from .job_rules import Violation


class Found(NamedTuple):
    """What a search came to."""

    states: int
    steps: int
    violation: str | None
    #: the steps from the beginning to the violation
    trace: list[str]
    complete: bool = True


def search(
    bounds: Bounds, decisions: Decisions | None = None, states_max: int | None = None
) -> Found:
    """Look at every state that can be reached, or at the first *states_max* of them."""
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
                world = _in_order(after)
                known = numbers.setdefault(world, len(worlds))
                if known == len(worlds):
                    worlds.append(world)
                    came_from.append((number, label))
                if label not in BY_PEOPLE:
                    leads_to.append(known)
        except Violation as error:
            trace = [*_trace(came_from, number), f"then {error.what}"]
            return Found(len(worlds), len(leads_to), str(error), trace)
        begins.append(len(leads_to))
    complete = len(begins) > len(worlds)
    stuck = _stuck(model, worlds, leads_to, begins) if complete else None
    trace = [] if stuck is None else _trace(came_from, stuck)
    violation = None if stuck is None else "it never comes to an end without people"
    return Found(len(worlds), len(leads_to), violation, trace, complete)


def _stuck(model: Model, worlds: list[World], leads_to: Any, begins: Any) -> int | None:
    """The first state from which no path that needs no people leads to all jobs' end."""
    ends = bytearray(map(model.finished, worlds))
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
