"""Entry point of the `sealpool` script."""

import sys


def main() -> None:
    """Run the command line, or say what to install for it."""
    try:
        from sealpool.cli.app import run_script
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(f'error: the command line needs {error.name}: pip install "sealpool[cli]"')
    sys.exit(run_script(sys.argv[1:]))


if __name__ == "__main__":
    main()
