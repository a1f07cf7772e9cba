"""The version of eventjobs. The package's metadata has the same one, read from this file."""

__version__ = "0.1.0"
