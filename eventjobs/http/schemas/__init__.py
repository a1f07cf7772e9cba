"""The models of request and response bodies; the OpenAPI document is made from them."""
