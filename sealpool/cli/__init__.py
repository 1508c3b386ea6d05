"""The command line: pools, campaigns, labels, the three services, the demo.

Importing it costs typer, rich, grpc and NumPy; whatever is heavier is imported by the command that needs it.
"""
