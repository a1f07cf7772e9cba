"""Requests drawn from the OpenAPI document: the service answers each as the document says."""
