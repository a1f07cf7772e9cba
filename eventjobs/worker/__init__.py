"""A worker in another process or on another machine, which runs jobs over HTTP."""
