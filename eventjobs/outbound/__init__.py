"""Requests to addresses that users gave: their policy, external services, webhooks."""
