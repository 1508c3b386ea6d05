"""Write the Python stubs of proto/ to sealpool/v1/, or, with --check, say whether those there are current."""

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
STUBS = PROTO.parent / "sealpool" / "v1"


def generate(out: Path) -> None:
    """Generate messages, gRPC stubs and their .pyi below `out`."""
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *(str(path) for path in sorted(PROTO.glob("sealpool/v1/*.proto"))),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")


def main() -> None:
    """Generate, or compare with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if sealpool/v1 is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = sorted((Path(scratch) / "sealpool" / "v1").iterdir())
        if check:
            stale = [p.name for p in fresh if not _same(p, STUBS / p.name)]
            if stale:
                sys.exit(f"stale stubs, run `make proto`: {', '.join(stale)}")
            return
        STUBS.mkdir(parents=True, exist_ok=True)
        for path in fresh:
            shutil.copyfile(path, STUBS / path.name)


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    main()
