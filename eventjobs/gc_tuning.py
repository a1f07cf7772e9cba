"""When Python looks for garbage that refers to itself: seldom, since jobs leave next to none."""

import gc

#: Objects that are new and not gone again, until the newest are looked at. The 700 that Python
#: begins with are those of a few dozen jobs that are on their way and no garbage at all: looking
#: at them again and again took a fifth of the time that the loop had for a job.
THRESHOLD = 50_000


def raise_gc_thresholds() -> None:
    """For the whole process: a cycle that is garbage stays until there are so many new objects."""
    gc.set_threshold(THRESHOLD, 20, 20)


def freeze_startup_objects() -> None:
    """What is here now stays for good: no look has to come by it again."""
    gc.collect()
    gc.freeze()
