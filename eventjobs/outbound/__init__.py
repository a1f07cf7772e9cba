"""Requests to addresses that users gave: address policy, external services, webhooks."""
