"""`python -m eventjobs` is `eventjobs`."""

from eventjobs.cli import main

main()
