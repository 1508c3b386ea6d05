"""Where Lance keeps what, and which of its files a version needs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import lance

DIRECTORIES: Final = ("data", "_deletions", "_transactions", "_versions")
"""What is below the root."""
_MAX_VERSION: Final = 2**64 - 1
_MANIFEST = re.compile(r"(\d{20})\.manifest")


class LanceLayout:
    """The files of one Lance data set on a local disk. Relative paths are relative to its root.

    Manifests are named by their distance to 2⁶⁴ − 1 (Lance's "V2" names), so the newest sorts first.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions = root / "_versions"

    def manifest(self, version: int) -> Path:
        """Return the path of a version's manifest."""
        return self.versions / f"{_MAX_VERSION - version:020d}.manifest"

    def manifests(self) -> dict[int, Path]:
        """Return all manifests by version, whole or torn."""
        found = ((_MANIFEST.fullmatch(path.name), path) for path in self.versions.iterdir())
        return {_MAX_VERSION - int(match[1]): path for match, path in found if match}

    def files_of(self, dataset: lance.LanceDataset) -> frozenset[str]:
        """Return the data and deletion files that a version consists of."""
        return self.files_of_fragments(fragment.metadata for fragment in dataset.get_fragments())

    def files_of_fragments(self, fragments: Iterable[Any]) -> frozenset[str]:
        """Return the data and deletion files of fragments, committed or not."""
        files: set[str] = set()
        for fragment in fragments:
            files.update(f"data/{file.path}" for file in fragment.files)
            if fragment.deletion_file is not None:
                files.add(fragment.deletion_file.path(fragment.id))
        return frozenset(files)

    def commit_files(self, version: int) -> list[Path]:
        """Return the files that a commit wrote beside data: its manifest and its transaction."""
        return [self.manifest(version), *self.transactions(version)]

    def transactions(self, version: int) -> list[Path]:
        """Return the transaction files of commits that made `version`, or tried to."""
        return list((self.root / "_transactions").glob(f"{version - 1}-*.txn"))

    def discard_after(self, version: int) -> None:
        """Remove manifests above `version`, and Lance's hint at the newest, which may name one of them."""
        for later, path in self.manifests().items():
            if later > version:
                path.unlink()
        (self.versions / "latest_version_hint.json").unlink(missing_ok=True)

    def keep_only(self, version: int, files: frozenset[str]) -> int:
        """Remove every file that `version`, made of `files`, does not need; return how many there were."""
        kept = {self.root / name for name in files} | {self.manifest(version)}
        removed = 0
        for path in [path for path in self.root.rglob("*") if path.is_file() and path not in kept]:
            path.unlink()
            removed += 1
        return removed
