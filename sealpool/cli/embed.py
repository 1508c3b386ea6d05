"""`sealpool embed`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sealpool.cli.embed_inputs import EmbedInput, look_through
from sealpool.cli.embed_output import EmbedOutput
from sealpool.cli.options import LEARNER, AsJson, Learner, learner_client
from sealpool.cli.output import answer_json, count, note, say
from sealpool.cli.pool_ingest import Pooling
from sealpool.cli.progress import file_progress
from sealpool.cli.records import Record
from sealpool.errors import InternalError, InvalidArgument, SealpoolError, Unavailable
from sealpool.types import Vectors

_RETRY_S = 0.2


@dataclass(kw_only=True, slots=True)
class Embedding:
    """An input into an output, part after part.

    Parameters
    ----------
    turn
        Turns texts or images into vectors, in chunks of its own size.
    wait_s
        How long to wait for a learner that goes away on the way.
    on_progress
        Told the share of the rows that have vectors, and how many were embedded in this run.
    there, embedded
        Rows that were in the output before, and that this run put there.
    """

    source: EmbedInput
    output: EmbedOutput
    part_rows: int
    turn: Callable[[Iterable[str | bytes]], Iterator[Vectors]]
    wait_s: float = 30.0
    on_progress: Callable[[float, int], None] = lambda _share, _items: None
    there: int = field(default=0, init=False)
    embedded: int = field(default=0, init=False)

    def run(self) -> None:
        """Embed what the output lacks.

        Raises
        ------
        FailedPrecondition
            The output holds something else.
        Unavailable
            The learner was away for longer than `wait_s`.
        """
        if self.output.is_complete():
            self.there = self.source.rows
            self.output.finish()
            return
        parts = self.output.begin()
        self.there = min(parts * self.part_rows, self.source.rows)
        for number, records in enumerate(self.source.portions(self.part_rows, skip=self.there), parts):
            vectors = self._patiently(records)
            self.output.write_part(number, records, vectors)
            self.embedded += len(records)
            self.on_progress((self.there + self.embedded) / self.source.rows, self.embedded)
        self.output.finish()

    def _patiently(self, records: Sequence[Record]) -> Vectors:
        deadline = time.monotonic() + self.wait_s
        told = False
        while True:
            try:
                return self._embed(records)
            except Unavailable:
                if time.monotonic() + _RETRY_S >= deadline:
                    raise
                if not told:
                    note(f"the learner is away; waiting for it, up to {self.wait_s:.0f} s")
                told = True
                time.sleep(_RETRY_S)

    def _embed(self, records: Sequence[Record]) -> Vectors:
        parts: list[Vectors] = []
        rows = 0
        try:
            for vectors in self.turn(self.source.contents(records)):
                parts.append(vectors)
                rows += len(vectors)
                embedded = self.embedded + rows
                self.on_progress((self.there + embedded) / self.source.rows, embedded)
        except InvalidArgument as error:
            if error.field not in ("texts", "images"):
                raise
            first = records[0]
            raise InvalidArgument(f"{self.source.path.name}, from {first.id!r} (0) on", error.message) from error
        if rows != len(records):
            raise InternalError(f"the learner answered {rows:,} vectors for {len(records):,} items")
        return np.concatenate(parts)


def embed(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            exists=True,
            help="JSON Lines (.jsonl, .jsonl.gz), CSV (.csv, .csv.gz) or Parquet with columns id and text, or a "
            "directory of images, whose ids are their paths in it.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="A Parquet file (.parquet), or a directory for Parquet parts: id, vector, and all columns of INPUT.",
            show_default=False,
        ),
    ],
    *,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Hugging Face encoder: a directory on the learner's machine, or a model name that its cache has.",
            show_default=False,
        ),
    ],
    pooling: Annotated[Pooling, typer.Option(help="Mean of the tokens or patches, or the first one.")] = Pooling.MEAN,
    normalize: Annotated[bool, typer.Option(help="Scale each vector to length 1.")] = True,
    max_tokens: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="Cut longer texts; 0 is the encoder's own limit.")
    ] = 0,
    half: Annotated[bool, typer.Option("--half", help="Keep vectors as float16: half the size.")] = False,
    part_rows: Annotated[
        int,
        typer.Option(min=1, max=10_000_000, help="Rows of a part: what an interruption costs; they are in memory."),
    ] = 10_000,
    learner: Learner = LEARNER,
    as_json: AsJson = False,
) -> None:
    """Turn texts or images into vectors, in a file that `sealpool pool ingest` takes.

    If it is interrupted, run it again: it goes on where it was. With another input or other options it refuses to.

    Examples: `sealpool embed news.jsonl.gz news.parquet --encoder sentence-transformers/all-MiniLM-L6-v2`,
    `sealpool embed photos/ photos-vectors/ --encoder google/vit-base-patch16-224-in21k --half`
    """
    found = look_through(source)
    description = {
        "input": found.digest,
        "encoder": encoder,
        "pooling": pooling.value,
        "normalize": normalize,
        "max_tokens": max_tokens,
        "half": half,
        "part_rows": part_rows,
    }
    target = EmbedOutput(path=output, description=description, columns=found.columns, half=half)
    began = time.monotonic()
    with learner_client(learner) as client, file_progress(f"{source.name} → {output.name}") as on_progress:
        turn = partial(client.embed, encoder=encoder, pooling=pooling.value, normalize=normalize, max_tokens=max_tokens)
        work = Embedding(source=found, output=target, part_rows=part_rows, turn=turn, on_progress=on_progress)
        try:
            work.run()
        except (SealpoolError, KeyboardInterrupt):
            if work.there + work.embedded:
                rows = count(work.there + work.embedded)
                note(f"{rows} of {count(found.rows)} rows have vectors; the same command goes on where it was")
            raise
    _answer(output, work, time.monotonic() - began, as_json)


def _answer(output: Path, work: Embedding, elapsed_s: float, as_json: bool) -> None:
    rate = work.embedded / elapsed_s if elapsed_s > 0 else 0.0
    if as_json:
        answer_json(
            {
                "output": str(output),
                "rows": work.source.rows,
                "embedded": work.embedded,
                "seconds": elapsed_s,
                "rows_per_second": rate,
            }
        )
        return
    before = f"; {count(work.there)} were there already" if work.there else ""
    say(f"{count(work.embedded)} vectors into {output}, {rate:,.0f} a second{before}")
