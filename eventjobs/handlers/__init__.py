"""What users write and use: handler declarations, contexts, steps, child jobs, circuit breakers."""
