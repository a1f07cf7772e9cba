"""Power cuts: runs of the service are traced, cut anywhere, and the remains checked."""
