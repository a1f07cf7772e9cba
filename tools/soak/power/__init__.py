"""Power cuts: traced runs of the service, what a disk may have of them, and what must hold."""
