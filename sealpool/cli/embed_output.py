"""What `sealpool embed` writes: Parquet parts, each there whole or not at all, and one file of them if asked for."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sealpool.cli.embed_inputs import as_kind, carried
from sealpool.cli.options import need
from sealpool.cli.output import Json
from sealpool.cli.records import Record
from sealpool.durable import make_directory, sync_directory, sync_file, write_durably
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import Vectors

_MANIFEST = "_embedding.json"
_KEY = b"sealpool.embedding"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOutput:
    """Parts in a directory, or, for a name that ends in .parquet, one file that is put together from them at the end.

    Parameters
    ----------
    description
        What the vectors were made of and how; an output of another description is not gone on with.
    columns
        See EmbedInput.columns.
    half
        Whether vectors are kept as float16.
    """

    path: Path
    description: Mapping[str, Json]
    columns: Mapping[str, str]
    half: bool

    @property
    def parts_path(self) -> Path:
        """Where the parts are."""
        return self.path.with_name(f"{self.path.name}.parts") if self._is_file else self.path

    @property
    def _is_file(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    def is_complete(self) -> bool:
        """Whether the one file is there, and of this description.

        Raises
        ------
        FailedPrecondition
            It is something else.
        """
        if not self._is_file or not self.path.exists():
            return False
        arrow, parquet = need("pyarrow", extra="cli"), need("pyarrow.parquet", extra="cli")
        try:
            found = (parquet.read_schema(self.path).metadata or {}).get(_KEY)
        except (arrow.ArrowException, OSError) as error:
            raise FailedPrecondition(f"{self.path} is there, and no Parquet file: give another OUTPUT") from error
        if found is None:
            raise FailedPrecondition(f"{self.path} is there, and not from this command: give another OUTPUT")
        self._compare(self.path, json.loads(found))
        return True

    def begin(self) -> int:
        """Make the directory of parts, or go on with it; return how many parts are there.

        Raises
        ------
        FailedPrecondition
            It holds something else: another input, encoder, or option.
        """
        manifest = self.parts_path / _MANIFEST
        if self.parts_path.exists() and not self.parts_path.is_dir():
            raise FailedPrecondition(f"{self.parts_path} is there, and no directory: give another OUTPUT")
        if self._part(0).exists() and manifest.exists():
            self._compare(self.parts_path, json.loads(manifest.read_bytes()))
        else:  # a description without a part binds nobody: its encoder may have been a slip of the pen
            make_directory(self.parts_path)
            others = [path for path in self.parts_path.iterdir() if path != manifest and path.name[0] != "."]
            if others:
                raise FailedPrecondition(f"{self.parts_path} holds files that are not of this command")
            write_durably(manifest, json.dumps(self.description).encode())
        number = 0
        while self._part(number).exists():
            number += 1
        return number

    def write_part(self, number: int, records: Sequence[Record], vectors: Vectors) -> None:
        """Write a part; when this returns, it is on disk.

        Raises
        ------
        InvalidArgument
            A number that float16 does not hold.
        """
        parquet = need("pyarrow.parquet", extra="cli")
        part = self._part(number)
        temporary = part.with_name(f".{part.name}.new")
        parquet.write_table(self._table(records, vectors), temporary)
        _put(temporary, part)

    def finish(self) -> None:
        """Put the parts together where one file was asked for."""
        if not self._is_file:
            return
        parquet = need("pyarrow.parquet", extra="cli")
        if not self.path.exists():
            temporary = self.path.with_name(f".{self.path.name}.new")
            schema = parquet.read_schema(self._part(0))
            with parquet.ParquetWriter(temporary, schema) as writer:
                number = 0
                while self._part(number).exists():
                    writer.write_table(parquet.read_table(self._part(number)))
                    number += 1
            _put(temporary, self.path)
        shutil.rmtree(self.parts_path, ignore_errors=True)

    def _part(self, number: int) -> Path:
        return self.parts_path / f"part-{number:06}.parquet"

    def _compare(self, path: Path, found: Mapping[str, Json]) -> None:
        for name in self.description:
            before, now = found.get(name), self.description[name]
            if before != now:
                what = "was made from another input" if name == "input" else f"was made with {name} {before}, not {now}"
                raise FailedPrecondition(f"{path} {what}: give another OUTPUT, or delete {path}")

    def _table(self, records: Sequence[Record], vectors: Vectors) -> Any:
        arrow = need("pyarrow", extra="cli")
        kept = vectors
        if self.half:
            with np.errstate(over="ignore"):
                kept = vectors.astype(np.float16)
            bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
            if len(bad):
                raise InvalidArgument("--half", f"float16 does not hold the vector of {records[bad[0]].id!r}")
        types = {
            "string": arrow.string(),
            "json": arrow.string(),
            "strings": arrow.list_(arrow.string()),
            "bool": arrow.bool_(),
            "int64": arrow.int64(),
            "float64": arrow.float64(),
        }
        rows = [carried(record) for record in records]
        arrays = {"id": arrow.array([record.id for record in records], arrow.string())}
        for name, kind in self.columns.items():
            arrays[name] = arrow.array([as_kind(row.get(name), kind) for row in rows], types[kind])
        arrays["vector"] = arrow.FixedSizeListArray.from_arrays(arrow.array(kept.ravel()), vectors.shape[1])
        return arrow.table(arrays).replace_schema_metadata({_KEY: json.dumps(self.description)})


def _put(temporary: Path, path: Path) -> None:
    sync_file(temporary)
    temporary.replace(path)
    sync_directory(path.parent)
