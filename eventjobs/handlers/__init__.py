"""What users write, and what their functions are given: contexts, steps, children, breakers."""
