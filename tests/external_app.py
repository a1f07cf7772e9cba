"""An app module for a server of its own: its jobs are done by the service in PYTHON_SERVICE_URL."""

from eventjobs import external

analyse = external("analyse", dispatch_url="/analyse", retry_delay_s=0.0)
