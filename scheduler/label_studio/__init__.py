"""Campaigns in Label Studio: projects, tasks and predictions out, annotations in, and the model as its ML backend.

The REST API is spoken with httpx. Label Studio's own SDK is not used: it brings code formatters, OpenCV and more along.
"""
