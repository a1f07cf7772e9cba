"""The routes of other job services: each is a rendering of the same jobs, and keeps no state."""
