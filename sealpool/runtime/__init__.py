"""What the three services share around their own code: settings, logs, metrics, and a gRPC server that stops well.

Needs the extra `server`, which every service's extra brings.
"""
