"""An app module for a server of its own: its jobs are done by the service in PYTHON_SERVICE_URL."""

from eventjobs import external

analyse = external("analyse", dispatch_url="/analyse", max_attempts=20, retry_delay_s=0.0)
