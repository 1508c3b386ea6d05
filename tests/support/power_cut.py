"""A file system that remembers what is on disk: recorded calls go in, what a power cut may leave comes out.

The rules are those that POSIX gives, and no kinder (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014,
found programs that relied on more): a file's content is on disk after an fsync of the file, its name after an fsync of
the directory, and until then each change of either may be there or not, in any order. Three things are kinder than they
could be: a change of a name is there or not, never half; two changes of one name are not exchanged; and a rename from
one directory to another is settled by an fsync of either.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.support.file_recorder import Kind, Record


@dataclass(slots=True, eq=False)
class File:
    """A file: what is on disk of it, and the writes and truncations that may be lost."""

    durable: bytes = b""
    waiting: list[Record] = field(default_factory=list)

    def content(self, chosen: Iterable[Record]) -> bytes:
        """Return the content if of the waiting changes only `chosen` came to the disk."""
        content = bytearray(self.durable)
        for change in chosen:
            if change.kind is Kind.TRUNCATE:
                del content[change.offset :]
                content.extend(bytes(change.offset - len(content)))
            else:
                content.extend(bytes(max(0, change.offset - len(content))))
                content[change.offset : change.offset + len(change.data)] = change.data
        return bytes(content)

    def sync(self) -> None:
        """Put everything on disk."""
        self.durable, self.waiting = self.content(self.waiting), []


@dataclass(slots=True, eq=False)
class Directory:
    """A directory: what its names stand for in memory and on disk."""

    entries: dict[str, "File | Directory"] = field(default_factory=dict)
    durable: dict[str, "File | Directory"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of names that may be lost: what each name stands for after it, None if for nothing."""

    changes: tuple[tuple[Directory, str, "File | Directory | None"], ...]

    def concerns(self, directory: Directory) -> bool:
        """Whether it changes a name in `directory`."""
        return any(changed is directory for changed, _, _ in self.changes)


class Disk:
    """The files below one directory after some records."""

    def __init__(self) -> None:
        self.root = Directory()
        self._by_inode: dict[int, File] = {}
        self._waiting: list[Naming] = []

    def apply(self, record: Record) -> None:
        """Do what a record tells of."""
        match record.kind:
            case Kind.CREATED:
                self._by_inode[record.inode] = created = File()
                self._name((record.path, created))
            case Kind.WRITE | Kind.TRUNCATE:
                self._by_inode[record.inode].waiting.append(record)
            case Kind.SYNC_FILE:
                self._by_inode[record.inode].sync()
            case Kind.SYNC_DIRECTORY:
                self._sync_directory(self._directory(PurePosixPath(record.path)))
            case Kind.RENAME:
                self._name((record.path, None), (record.other, self._at(record.path)))
            case Kind.LINK:
                self._name((record.other, self._at(record.path)))
            case Kind.UNLINK | Kind.REMOVE_DIRECTORY:
                self._name((record.path, None))
            case Kind.MAKE_DIRECTORY:
                self._name((record.path, Directory()))
            case Kind.UNKNOWN:
                raise ValueError(f"the replay does not know {record.path}")

    def mapped_name(self, inode: int) -> str:
        """Return the last part of the name of a file."""
        file = self._by_inode[inode]
        return next(PurePosixPath(path).name for path, found in _walk(self.root, _in_memory) if found is file)

    def in_memory(self) -> dict[str, bytes | None]:
        """Return everything as the process saw it: contents by path, None for a directory."""
        return _tree(self.root, _in_memory, lambda file: file.content(file.waiting))

    def synced(self) -> dict[str, bytes | None]:
        """Return what is certainly left after a power cut, when nothing else is."""
        return _tree(self.root, _on_disk, lambda file: file.durable)

    def after_power_cut(self, chance: random.Random) -> dict[str, bytes | None]:
        """Return something that may be left after a power cut: some of what was not synced, some of it torn."""
        share = chance.choice([0.1, 0.5, 0.9, 1.0])
        names = {id(directory): dict(directory.durable) for directory in self._directories()}
        for naming in self._waiting:
            if chance.random() < share:
                for directory, name, target in naming.changes:
                    _put(names.setdefault(id(directory), dict(directory.durable)), name, target)
        contents: dict[int, bytes] = {}  # one file may have two names

        def content(file: File) -> bytes:
            return contents.setdefault(id(file), _torn(file, chance))

        return _tree(self.root, lambda directory: names.get(id(directory), directory.durable), content)

    def _directories(self) -> Iterator[Directory]:
        yield self.root
        for naming in self._waiting:
            yield from (directory for directory, _, _ in naming.changes)

    def _name(self, *changes: tuple[str, File | Directory | None]) -> None:
        placed = tuple(
            (self._directory(PurePosixPath(path).parent), PurePosixPath(path).name, target) for path, target in changes
        )
        for directory, name, target in placed:
            _put(directory.entries, name, target)
        self._waiting.append(Naming(placed))

    def _sync_directory(self, directory: Directory) -> None:
        for naming in self._waiting:
            if naming.concerns(directory):
                for changed, name, target in naming.changes:
                    _put(changed.durable, name, target)
        self._waiting = [naming for naming in self._waiting if not naming.concerns(directory)]

    def _at(self, path: str) -> File | Directory:
        place = PurePosixPath(path)
        return self._directory(place.parent).entries[place.name]

    def _directory(self, path: PurePosixPath) -> Directory:
        found = self.root
        for name in path.parts:
            entry = found.entries[name]
            if not isinstance(entry, Directory):
                raise NotADirectoryError(str(path))
            found = entry
        return found


def replay(records: Iterable[Record]) -> Disk:
    """Return the disk after `records`, which begin with an empty directory."""
    disk = Disk()
    for record in records:
        disk.apply(record)
    return disk


def write_tree(tree: dict[str, bytes | None], target: Path) -> None:
    """Make real files of a tree, in a new directory."""
    target.mkdir()
    for path, content in tree.items():  # a directory comes before what is in it
        if content is None:
            (target / path).mkdir()
        else:
            (target / path).write_bytes(content)


def read_tree(root: Path) -> dict[str, bytes | None]:
    """Return real files as a tree."""
    paths = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in paths}


Entries = Callable[[Directory], dict[str, "File | Directory"]]


def _in_memory(directory: Directory) -> dict[str, File | Directory]:
    return directory.entries


def _on_disk(directory: Directory) -> dict[str, File | Directory]:
    return directory.durable


def _put(entries: dict[str, File | Directory], name: str, target: File | Directory | None) -> None:
    if target is None:
        entries.pop(name, None)
    else:
        entries[name] = target


def _walk(directory: Directory, entries: Entries, above: str = "") -> Iterator[tuple[str, File | Directory]]:
    for name, entry in sorted(entries(directory).items()):
        yield above + name, entry
        if isinstance(entry, Directory):
            yield from _walk(entry, entries, f"{above}{name}/")


def _tree(root: Directory, entries: Entries, content: Callable[[File], bytes]) -> dict[str, bytes | None]:
    return {path: content(entry) if isinstance(entry, File) else None for path, entry in _walk(root, entries)}


def _torn(file: File, chance: random.Random) -> bytes:
    """Return some content that a file may have: all, nothing, some or a part of its unsynced changes."""
    how = chance.choice(["all", "none", "some", "prefix", "zeros"])
    if how == "all" or not file.waiting:
        return file.content(file.waiting)
    if how == "none":
        return file.durable
    if how == "some":
        return file.content(change for change in file.waiting if chance.random() < 0.5)
    whole = file.content(file.waiting)
    if how == "zeros":  # the length is on disk, the data is not
        return file.durable[: len(whole)].ljust(len(whole), b"\0")
    last = file.waiting[-1]
    kept = last.data[: chance.randrange(len(last.data) + 1)]
    torn = Record(last.kind, last.inode, last.offset, "", "", kept)
    return file.content([*file.waiting[:-1], torn])
