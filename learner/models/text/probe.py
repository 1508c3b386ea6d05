"""What a Hugging Face encoder is made of, found by running it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from learner.models.text.tokens import FIELD, Pretrained
from sealpool.errors import FailedPrecondition

_LENGTHS = (3, 5)
"""Tokens of the two texts that are run: a layer whose input is as wide for both works on features, not on positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """Parts of an encoder, by their names in it.

    Parameters
    ----------
    width
        h, the features of a token.
    dropouts
        Dropout of features. That of attention weights is not among them: its width is the longest text of a batch, so
        one mask for all items has no meaning there.
    linears
        Linear layers that take part in the last hidden state; a pooler that is not used does not.
    """

    width: int
    dropouts: tuple[str, ...]
    linears: tuple[str, ...]


def anatomy(pretrained: Pretrained) -> Anatomy:
    """Run two short texts through an encoder, and say what was seen; FailedPrecondition if it reads no text."""
    model = pretrained.model
    widths: list[dict[str, int]] = []
    for length in _LENGTHS:
        with _watching(model) as seen:
            width = _run(pretrained, length)
        widths.append(seen)
    names = [name for name in widths[0] if widths[0][name] == widths[1].get(name)]
    parts = dict(model.named_modules())
    return Anatomy(
        width=width,
        dropouts=tuple(name for name in names if isinstance(parts[name], nn.Dropout)),
        linears=tuple(name for name in names if isinstance(parts[name], nn.Linear) and "pooler" not in name),
    )


@contextmanager
def _watching(model: nn.Module) -> Iterator[dict[str, int]]:
    """Give a dict that is filled with the width of what each linear and dropout layer was given."""
    seen: dict[str, int] = {}

    def watch(name: str, part: nn.Module) -> Any:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0].shape[-1]

        return part.register_forward_pre_hook(note)

    hooks = [watch(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Dropout)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _run(pretrained: Pretrained, length: int) -> int:
    """Return h, the width of the last hidden state of a text of `length` tokens."""
    token = 1 if pretrained.tokenizer.pad_token_id == 0 else 0
    tokens = torch.full((1, length), token)
    try:
        with torch.no_grad():
            answer = pretrained.model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        states: torch.Tensor = answer.last_hidden_state
    except (TypeError, ValueError, AttributeError) as error:
        raise FailedPrecondition("the encoder has no last hidden state of a text's tokens", field=FIELD) from error
    return int(states.shape[-1])
