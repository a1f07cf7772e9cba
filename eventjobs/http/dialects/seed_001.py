"""The front end that reads jobs by their UUID, and the log lines that it is debugged with."""

from eventjobs.http.dialects import job_status
from eventjobs.http.dialects.dialect import Dialect

DIALECT = Dialect("001", (job_status.ROUTE,))
