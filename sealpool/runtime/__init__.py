"""What the three services share around their own code: settings, logs, metrics, tokens, a gRPC server.

Needs the extra `server`, which every service's extra brings; `addresses` and `tokens`, which clients and the command
line use, do not.
"""
