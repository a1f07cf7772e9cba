"""The read models: pure functions of events, kept in views.db, which can be deleted at any time."""
