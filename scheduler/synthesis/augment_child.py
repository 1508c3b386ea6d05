"""The process that nlpaug runs in: a job as JSON on stdin, texts as JSON on stdout.

Nlpaug draws from the global generators of `random` and NumPy, and imports whatever it may need: with torch and
transformers installed that takes 9 s and half a gigabyte, which none of what is used here needs. So both are hidden
from it, and in a process of its own the generators can be seeded for each text.
"""

import json
import random
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

_HIDDEN = frozenset({"torch", "transformers", "sklearn", "scipy"})
SHARE = 0.15
"""Of the words that are changed, at least one."""


class _Hide:
    """An importer that does not find some packages, though they are there."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:  # noqa: ARG004
        """Refuse the hidden ones; leave the others to the importers that follow."""
        if name.partition(".")[0] in _HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def make_changes() -> list[Callable[[str], list[str]]]:
    """Return what a text can be changed by: words swapped, words left out, typing errors, reading errors."""
    import nlpaug.augmenter.char as chars
    import nlpaug.augmenter.word as words

    whole = {"tokenizer": str.split, "reverse_tokenizer": " ".join}  # its own takes punctuation and formulas apart
    return [
        words.RandomWordAug(action="swap", aug_p=SHARE, **whole).augment,
        words.RandomWordAug(action="delete", aug_p=SHARE, **whole).augment,
        chars.KeyboardAug(aug_word_p=SHARE, **whole).augment,
        chars.OcrAug(aug_word_p=SHARE, **whole).augment,
    ]


def main() -> None:
    """Answer one job: {"texts": […], "changes": […], "seeds": […]}, parallel."""
    sys.meta_path.insert(0, _Hide())
    job = json.load(sys.stdin)
    answer, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no part of the answer
    try:
        import numpy as np

        changes = make_changes()
    except ModuleNotFoundError as error:
        json.dump({"missing": (error.name or "nlpaug").partition(".")[0]}, answer)
        return
    texts = []
    for text, change, seed in zip(job["texts"], job["changes"], job["seeds"], strict=True):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        made = changes[change](text)
        texts.append(made[0] if made else text)
    json.dump({"texts": texts}, answer)


if __name__ == "__main__":
    main()
