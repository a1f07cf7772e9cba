"""Webhooks: subscriptions, and one delivery job for each event and subscription."""
