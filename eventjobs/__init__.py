"""eventjobs: an event-sourced job service on asyncio.

Errors, JobSpec and Recorded are imported with the package. The other names are imported at their
first use: `import eventjobs` in a handler's process stays fast, and no import cycle arises.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import EventjobsError, JobError
from eventjobs.version import __version__

if TYPE_CHECKING:
    from eventjobs.handlers.breaker_state import BreakerOpen
    from eventjobs.handlers.context import Context
    from eventjobs.handlers.declare import external, handler, remote
    from eventjobs.handlers.hooks import CompletedJob, completion_hook, on_completion
    from eventjobs.handlers.registry import HandlerRegistry
    from eventjobs.handlers.schedule import schedule
    from eventjobs.handlers.thread_context import ThreadContext
    from eventjobs.service import Service
    from eventjobs.settings import Settings

__all__ = [
    "BreakerOpen",
    "CompletedJob",
    "Context",
    "EventjobsError",
    "HandlerRegistry",
    "JobError",
    "JobSpec",
    "Recorded",
    "Service",
    "Settings",
    "ThreadContext",
    "__version__",
    "completion_hook",
    "external",
    "handler",
    "on_completion",
    "remote",
    "schedule",
]

_LATER = {
    "BreakerOpen": "eventjobs.handlers.breaker_state",
    "CompletedJob": "eventjobs.handlers.hooks",
    "Context": "eventjobs.handlers.context",
    "HandlerRegistry": "eventjobs.handlers.registry",
    "ThreadContext": "eventjobs.handlers.thread_context",
    "completion_hook": "eventjobs.handlers.hooks",
    "external": "eventjobs.handlers.declare",
    "handler": "eventjobs.handlers.declare",
    "on_completion": "eventjobs.handlers.hooks",
    "remote": "eventjobs.handlers.declare",
    "schedule": "eventjobs.handlers.schedule",
    "Service": "eventjobs.service",
    "Settings": "eventjobs.settings",
}


#: Old names, with a DeprecationWarning, for one more release.
_RENAMED = {"Handlers": "HandlerRegistry", "outside": "remote"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        message = f"eventjobs.{name} is now eventjobs.{_RENAMED[name]}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'eventjobs' has no attribute {name!r}")
