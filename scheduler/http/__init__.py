"""The scheduler's HTTP/JSON front: the same calls as over gRPC, for browsers and webhooks.

It serves the servicers' methods in this process, behind the same tokens, permits and metrics, and says so in OpenAPI.
"""
