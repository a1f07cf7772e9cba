"""A model check of the decisions about jobs; see the package above."""
