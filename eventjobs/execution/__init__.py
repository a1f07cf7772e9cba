"""Running attempts: slots, the handler under its limits, the outcome, its reports."""
