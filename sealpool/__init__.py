"""Active learning over pools too large to scan.

This package is what every process shares: the clients, the command line, the generated stubs and the service runtime.
"""
