import os


def pytest_configure() -> None:
    # What a command prints into a pipe goes by it. Some shells export it, and xdist sets it in its workers.
    os.environ.pop("COLUMNS", None)
