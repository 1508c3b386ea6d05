"""Progress bars, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sealpool.cli.output import PROGRESS, clean


@contextmanager
def file_progress(title: str) -> Iterator[Callable[[float, int], None]]:
    """Show how much of a file was worked off; yield a function of the share read and the items done.

    A negative share leaves the bar where it is.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[items]:,} items"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=PROGRESS) as progress:
        bar = progress.add_task(clean(title), total=1.0, items=0, rate="")

        def show(share_read: float, items: int) -> None:
            elapsed_s = progress.tasks[0].elapsed or 0.0
            rate = f"{items / elapsed_s:,.0f} items/s" if elapsed_s > 0 else ""
            progress.update(bar, items=items, rate=rate)
            if share_read >= 0:
                progress.update(bar, completed=share_read)

        yield show


@contextmanager
def counted_progress() -> Iterator[Progress]:
    """Show some tasks that are counted, with a remark each; add them with `remark=""`."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=PROGRESS) as progress:
        yield progress
