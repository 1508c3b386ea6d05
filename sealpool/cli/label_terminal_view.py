"""What is shown while somebody labels: lines of text, for any terminal."""

import io

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sealpool.cli.label_terminal_session import CLASS_KEYS, Hand, LabelSession
from sealpool.cli.output import clean, count, share

_GUESSES = 4
_WITHOUT = "Enter looks again · u undo · q quit"
_FOUND = 8
_BAR = 20


def lines_of(session: LabelSession, *, columns: int, rows: int) -> list[str]:
    """Return what there is to see of the item in hand, in at most so many rows."""
    hand = session.hand
    if hand is None:
        return [_progress(session), "─" * columns, "no task is open now", "", _WITHOUT, _message(session)]
    above = [_progress(session), "─" * columns, *_about(hand, columns)]
    below = ["", *_guess(session, hand), *_classes(session, hand, columns), *_help(session), _message(session)]
    room = max(rows - len(above) - len(below), 3)
    return [_cut(line, columns) for line in [*above, *_page(hand, columns, room), *below]]


def _progress(session: LabelSession) -> str:
    done = min(session.labelled / session.budget, 1.0) if session.budget else 0.0
    bar = "█" * round(done * _BAR) + "░" * (_BAR - round(done * _BAR))
    labelled = f"{count(session.labelled)} of {count(session.budget)} labelled"
    return (
        f"{clean(session.campaign)}  {bar}  {labelled} · {count(session.still_open)} open · {session.answered} by you"
    )


def _about(hand: Hand, columns: int) -> list[str]:
    task = hand.task
    again = f"  (was: {clean(hand.was, lines=False)})" if hand.was else ""
    first = f"{clean(task.item_id, lines=False)}  round {task.round}{again}"
    return [first, *([clean(task.uri, lines=False)] if task.uri else []), "─" * columns]


def _page(hand: Hand, columns: int, room: int) -> list[str]:
    text = clean(hand.task.text) if hand.task.text else "(no text)"
    wrapped = [line.plain.rstrip() for line in Text(text).wrap(_measure(), columns)]
    if len(wrapped) <= room:
        return wrapped
    room -= 1
    pages = -(-len(wrapped) // room)
    page = hand.page % pages
    shown = wrapped[page * room : (page + 1) * room]
    return [*shown, *[""] * (room - len(shown)), f"── page {page + 1} of {pages}: m shows more"]


def _guess(session: LabelSession, hand: Hand) -> list[str]:
    if not hand.task.predictions:
        return []
    likely = " · ".join(f"{clean(one.name)} {share(one.probability)}" for one in hand.task.predictions[:_GUESSES])
    return [f"guess: {likely}" + ("" if session.is_multilabel else "   (Enter takes the first)")]


def _classes(session: LabelSession, hand: Hand, columns: int) -> list[str]:
    if session.typed is not None:
        found = session.matches()
        names = "   ".join(clean(name) for name in found[:_FOUND]) or "(none)"
        return [f"class: {clean(session.typed)}▏", f"  {names}" + (" …" if len(found) > _FOUND else "")]
    cells = [_class(key, name, hand, multilabel=session.is_multilabel) for key, name in session.keys.items()]
    lines = [""]
    for cell in cells:
        if lines[-1] and cell_len(lines[-1]) + 3 + cell_len(cell) > columns:
            lines.append("")
        lines[-1] += ("   " if lines[-1] else "") + cell
    more = len(session.classes) - len(CLASS_KEYS)
    return [*lines, f"and {count(more)} more: / and the name"] if more > 0 else lines


def _class(key: str, name: str, hand: Hand, *, multilabel: bool) -> str:
    mark = ("[x] " if name in hand.chosen else "[ ] ") if multilabel else ""
    return f"{key} {mark}{clean(name)}"


def _help(session: LabelSession) -> list[str]:
    enter = "Enter hands in" if session.is_multilabel else "Enter accepts"
    if session.typed is not None:
        return ["Enter takes the first · Esc back"]
    # 80 columns hold all of it; "m", for a longer text, is named under the text itself.
    return [f"{enter} · s skip · ? cannot tell · u undo · c comment · / name · q quit"]


def _message(session: LabelSession) -> str:
    return clean(session.message, lines=False)  # it names items, classes, and what the scheduler answers


def _cut(line: str, columns: int) -> str:
    if cell_len(line) <= columns:
        return line
    text = Text(line)
    text.truncate(columns, overflow="ellipsis")
    return text.plain


def _measure() -> Console:
    return Console(file=io.StringIO(), width=80)
