"""Write docs/licences.md: every package of the images with its licence; fail on a licence that nobody has looked at.

`make licences` runs this, with pip-licenses on the path, over what is installed in .venv.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from deploy.supply_chain.lock import EXTRAS, LOCKS, ROOT, normal_name, pins

PAGE: Final = ROOT / "docs" / "licences.md"

_SPDX: Final[Mapping[str, str]] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License Version 2.0, January 2004": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "new BSD 3-Clause": "BSD-3-Clause",
}
"""What packages write in place of the licence's identifier."""

ACCEPTED: Final = frozenset(
    {
        *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
        *("CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib"),
        # Weak copyleft: used as they are, unchanged, and replaceable.
        *("LGPL-3.0-only", "MPL-2.0"),
        # CUDA's libraries: may be passed on with a program that uses them.
        "LicenseRef-NVIDIA-Proprietary",
    }
)

_NOT_INSTALLED: Final[Mapping[str, str]] = {
    "cuda-bindings": "Apache-2.0",
    "cuda-pathfinder": "Apache-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "faiss-gpu-cuvs": "MIT",
    "libcuvs-cu13": "Apache-2.0",
    "libraft-cu13": "Apache-2.0",
    "librmm-cu13": "Apache-2.0",
    "nvidia-nvtx": "Apache-2.0",
    "rapids-logger": "Apache-2.0",
    "triton": "MIT",
}
"""Of the GPU images alone, as their own metadata say; what else begins with nvidia- is NVIDIA's own."""


def alternatives(licence: str) -> set[str]:
    """Return the licences named in an expression such as `MIT AND (MPL-2.0 OR Apache-2.0)`."""
    words = licence.replace("(", " ").replace(")", " ").replace(" OR ", " AND ").replace("; ", " AND ").split(" AND ")
    return {word.strip() for word in words}


def main() -> int:
    """Write the page; return 1, and say which, where a licence is none that was accepted."""
    installed = _installed()
    images: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in EXTRAS:
        for name, version in pins((LOCKS / f"{image}.txt").read_text(encoding="utf-8")).items():
            images[name, version].append(image)
    found = {name: installed.get(name) or _of_a_gpu(name) for name, _ in images}
    PAGE.write_text(_page(images, found), encoding="utf-8")
    doubtful = {name: licence for name, licence in found.items() if not alternatives(licence) <= ACCEPTED}
    for name, licence in doubtful.items():
        sys.stderr.write(f"{name}: the licence {licence!r} was not accepted yet: look at it\n")
    return 1 if doubtful else 0


def _installed() -> dict[str, str]:
    command = ["pip-licenses", f"--python={sys.executable}", "--from=mixed", "--with-system", "--format=json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - no outside words
    return {normal_name(entry["Name"]): _identifier(entry["License"]) for entry in json.loads(answer)}


def _identifier(text: str) -> str:
    line = " ".join(text.split())
    if line.startswith("Apache License Version 2.0"):  # the whole text
        return "Apache-2.0"
    parts = [part for part in line.split("; ") if part != "DFSG approved"]
    return " AND ".join(sorted({_SPDX.get(part, part) for part in parts}))


def _of_a_gpu(name: str) -> str:
    if name in _NOT_INSTALLED:
        return _NOT_INSTALLED[name]
    return "LicenseRef-NVIDIA-Proprietary" if name.startswith("nvidia-") else "unknown"


def _page(images: Mapping[tuple[str, str], list[str]], found: Mapping[str, str]) -> str:
    lines = [
        "# Licences",
        "",
        "<!-- Written by `make licences` from deploy/locks; not edited by hand. -->",
        "",
        "sealpool is under Apache-2.0 ([LICENSE](../LICENSE)). Its images hold the packages below, as their authors",
        "publish them. LGPL and MPL packages are unchanged; `LicenseRef-NVIDIA-Proprietary` are CUDA's libraries, in",
        "the GPU images alone. The base image's own packages (Debian, Python) are not listed here.",
        "",
        "| package | version | licence | in |",
        "|---|---|---|---|",
    ]
    for (name, version), holders in sorted(images.items()):
        where = "all" if len(holders) == len(EXTRAS) else ", ".join(holders)
        lines.append(f"| {name} | {version} | {found[name]} | {where} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
