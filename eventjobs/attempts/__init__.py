"""Who may run a job, and what its reports count for: claims, limits, leases, fencing."""
