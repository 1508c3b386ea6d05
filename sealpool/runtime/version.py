"""Which version runs."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Return the version of the installed package, "unknown" where it runs from the sources without one."""
    try:
        return version("sealpool")
    except PackageNotFoundError:
        return "unknown"
