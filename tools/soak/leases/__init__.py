"""Remote workers are killed and paused; see the package above."""
