"""The read models: pure functions of events, stored in views.db, which can always be rebuilt.

docs/internals/ready-queue.md describes how the next jobs are selected.
"""

from eventjobs.projections.change import JobChange
from eventjobs.projections.queries import JobView
from eventjobs.projections.views import Views

__all__ = ["JobChange", "JobView", "Views"]
