"""Low-rank adapters (Hu et al., ICLR 2022, arXiv 2106.09685), through peft."""

import copy
from collections.abc import Sequence
from typing import Any

from sealpool.errors import FailedPrecondition

_FIELD = "header.model.text.lora_rank"
_SCALE = 2
"""What an adapter adds is scaled by it whatever the rank (lora_alpha = 2·rank): one number less to choose."""


def with_adapters(encoder: Any, *, rank: int, layers: Sequence[str]) -> Any:
    """Freeze an encoder, in place, and put an adapter that learns beside each of the linear `layers`; return it.

    The adapters add nothing at first, so the encoder computes what it did.

    Raises
    ------
    FailedPrecondition
        peft is not installed, or the encoder has no linear layer that an adapter could stand beside.
    """
    if not layers:
        raise FailedPrecondition("the encoder has no linear layers for adapters: set lora_rank to 0", field=_FIELD)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise FailedPrecondition(
            'LoRA needs peft on the learner\'s machine: pip install "sealpool[lora]"',
            field="header.model.text.lora_rank",
        ) from error
    settings = LoraConfig(r=rank, lora_alpha=_SCALE * rank, lora_dropout=0.0, bias="none", target_modules=list(layers))
    return inject_adapter_in_model(settings, encoder)


def merged(encoder: Any) -> Any:
    """Return a copy of an encoder, its adapters added into its weights and gone; the encoder itself stays as it is."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    copied = copy.deepcopy(encoder)
    for name, part in list(copied.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(copied.get_submodule(parent), last, part.get_base_layer())
    return copied
