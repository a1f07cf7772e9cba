"""What can happen to a job: pure values, and decisions without a clock, a loop or I/O."""
