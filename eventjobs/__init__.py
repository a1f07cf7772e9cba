"""eventjobs: an event-sourced job service on asyncio.

The names of floors 0 and 1 are here at once; what handler authors and embedding scripts need is
imported when first asked for, because `projections` interleaves with the floors between.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import EventjobsError, JobError

if TYPE_CHECKING:
    from eventjobs.handlers.breaker_state import BreakerOpen
    from eventjobs.handlers.context import Context
    from eventjobs.handlers.declare import external, handler, remote
    from eventjobs.handlers.registry import HandlerRegistry
    from eventjobs.handlers.schedule import schedule
    from eventjobs.handlers.thread_context import ThreadContext
    from eventjobs.service import Service
    from eventjobs.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "BreakerOpen",
    "Context",
    "EventjobsError",
    "HandlerRegistry",
    "JobError",
    "JobSpec",
    "Recorded",
    "Service",
    "Settings",
    "ThreadContext",
    "external",
    "handler",
    "remote",
    "schedule",
]

_LATER = {
    "BreakerOpen": "eventjobs.handlers.breaker_state",
    "Context": "eventjobs.handlers.context",
    "HandlerRegistry": "eventjobs.handlers.registry",
    "ThreadContext": "eventjobs.handlers.thread_context",
    "external": "eventjobs.handlers.declare",
    "handler": "eventjobs.handlers.declare",
    "remote": "eventjobs.handlers.declare",
    "schedule": "eventjobs.handlers.schedule",
    "Service": "eventjobs.service",
    "Settings": "eventjobs.settings",
}


#: Old names, which work for one more release.
_RENAMED = {"Handlers": "HandlerRegistry", "outside": "remote"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        message = f"eventjobs.{name} is now eventjobs.{_RENAMED[name]}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'eventjobs' has no attribute {name!r}")
