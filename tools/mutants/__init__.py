"""Changes of the code that a test must find."""
