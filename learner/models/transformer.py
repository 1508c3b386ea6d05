"""A Hugging Face encoder with a head, fine-tuned whole (Devlin et al., NAACL 2019) or by adapters (Hu et al., 2022)."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.models.neural.dropout import ConsistentDropout
from learner.models.text.lora import merged, with_adapters
from learner.models.text.probe import anatomy
from learner.models.text.reading import Numbers, TextModel
from learner.models.text.tokens import FIELD, LoadPretrained, Pretrained, Tokens, fingerprint, load_local, token_limit
from learner.options import ModelOptions
from learner.ports import Arrays, CancelCheck, FitReport, Progress, TrainingSet
from learner.problem import Problem
from sealpool.errors import InvalidArgument

_TOKENS_AT_ONCE = 16_384
"""Tokens, padding included, that go through the encoder at once where it predicts."""
_EPOCHS = 5
_LEAST_STEPS = 60
"""Few labels are few steps an epoch: with 50 labels of 10 intents (CLINC150) MiniLM has accuracy .55 after 5 epochs and
.90 after 30, which are 60 steps. Logistic regression on its frozen vectors has .97."""
_LEARNING_RATE = 5e-5
_LORA_LEARNING_RATE = 2e-4
_WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; Mosbach et al., ICLR 2021, show what happens without."""


class TransformerNetwork(nn.Module):
    """The mean of the last hidden state over a text's tokens, padding left out, then dropout and a linear layer.

    The mean, because encoders of sentences are trained so; no layer between, which few labels would have to train.

    The encoder's dropout of features becomes ConsistentDropout of its rate, so that Monte Carlo dropout reaches the
    whole network. Dropout of attention weights is switched off, in training too: a mask over positions cannot be the
    same for all items, and it would draw from the generator that all threads share, so that two fits would differ.

    Parameters
    ----------
    dropout
        Before the linear layer; the encoder's own rates are those of its configuration.
    lora_rank
        Of the adapters beside every linear layer of the encoder, whose own weights then stay; 0: all weights learn.
    """

    def __init__(self, pretrained: Pretrained, *, classes: int, dropout: float, lora_rank: int) -> None:
        super().__init__()
        parts = anatomy(pretrained)
        self.encoder: Any = _with_consistent_dropout(pretrained.model, parts.dropouts)
        if lora_rank:
            self.encoder = with_adapters(self.encoder, rank=lora_rank, layers=parts.linears)
        self.dropout = ConsistentDropout(dropout)
        self.head = nn.Linear(parts.width, classes)
        if lora_rank:
            self.register_state_dict_post_hook(_without_frozen)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_post_hook(_frozen_may_be_missing)  # type: ignore[no-untyped-call]

    def features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return (b, h) float32 of token numbers and mask (b, t); in eval mode, some tokens at a time."""
        if self.training:
            return self._pooled(input_ids, attention_mask)
        rows = max(1, _TOKENS_AT_ONCE // input_ids.shape[1])
        parts = zip(torch.split(input_ids, rows), torch.split(attention_mask, rows), strict=True)
        return torch.cat([self._pooled(*_trimmed(tokens, mask)) for tokens, mask in parts])

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return logits (b, c)."""
        logits: torch.Tensor = self.head(self.dropout(self.features(**inputs)))
        return logits

    def _pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask[..., None].float()
        pooled: torch.Tensor = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        return pooled


def _trimmed(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Take off the padding that no text of a part needs."""
    longest = max(1, int(attention_mask.sum(dim=1).max()))
    return input_ids[:, :longest], attention_mask[:, :longest]


def _with_consistent_dropout(encoder: nn.Module, of_features: tuple[str, ...]) -> nn.Module:
    """Change an encoder's dropout as TransformerNetwork says, in place."""
    for name, part in list(encoder.named_modules()):
        if isinstance(part, nn.Dropout):
            if name in of_features:
                parent, _, last = name.rpartition(".")
                setattr(encoder.get_submodule(parent), last, ConsistentDropout(part.p))
            else:
                part.p = 0.0
        elif isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = 0.0
    return encoder


def _frozen(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


def _without_frozen(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    """Take out of a state dict what is the encoder's own and never changes."""
    for name in _frozen(module):
        state.pop(prefix + name, None)


def _frozen_may_be_missing(module: nn.Module, keys: Any) -> None:
    frozen = _frozen(module)
    keys.missing_keys[:] = [name for name in keys.missing_keys if name not in frozen]


class TransformerClassifier(TextModel):
    """An encoder fine-tuned on the labels; see TransformerNetwork for the network.

    Each fit from scratch begins with the encoder as published and a head drawn from the seed, and where the campaign
    leaves the epochs open it takes 5, or as many as make 60 steps; going on takes 5. The learning rate rises
    over the first tenth of the steps and then stays. `text.max_tokens` is at most what the encoder can read. With
    `text.lora_rank` a checkpoint holds adapters and head alone. A checkpoint loads beside the encoder that it was
    trained from and no other: configuration and vocabulary must be equal, with adapters the weights too.

    Cost of a step: three passes over the batch's tokens, O(parameters) each.

    Parameters
    ----------
    load
        Where encoders come from; only this machine unless told otherwise.

    Raises
    ------
    InvalidArgument
        No encoder is named.
    """

    predicted_at_once = 1024

    def __init__(self, options: ModelOptions, problem: Problem, *, load: LoadPretrained = load_local) -> None:
        if not options.text.encoder:
            raise InvalidArgument(FIELD, "is empty; the transformer needs the encoder to fine-tune")
        rate = _LORA_LEARNING_RATE if options.text.lora_rank else _LEARNING_RATE
        self.defaults = {"epochs": _EPOCHS, "batch_size": 32, "learning_rate": rate, "warm_up": _WARM_UP}
        super().__init__(options, problem)
        self._load_pretrained = load
        self._reader: Tokens | None = None
        self._fingerprint = np.empty(0, np.uint8)

    def fit(
        self,
        training: TrainingSet,
        *,
        validation: TrainingSet | None,
        warm: bool,
        seed: int,
        device: torch.device,
        progress: Progress,
        cancelled: CancelCheck,
    ) -> FitReport:
        """Fine-tune the published encoder, or if `warm` go on; see learner.ports.Classifier."""
        self._settings = dataclasses.replace(self._settings, epochs=self._epochs(len(training), warm=warm))
        return super().fit(
            training,
            validation=validation,
            warm=warm,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )

    def encoder(self) -> tuple[Any, Any]:
        """Return the tokenizer and a copy of the fine-tuned encoder, adapters merged, in eval mode, where it lies.

        The encoder is the AutoModel of its name; `save_pretrained` writes it as any other.
        """
        fine_tuned: Any = self._fitted().encoder
        copied = merged(fine_tuned) if self._options.text.lora_rank else copy.deepcopy(fine_tuned)
        return self._tokens().tokenizer, copied.eval()

    def _build(self, training: TrainingSet) -> nn.Module:
        del training
        return self._network()

    def _epochs(self, examples: int, *, warm: bool) -> int:
        """Return how many epochs to train for."""
        asked = self._options.neural.epochs
        if asked or warm:
            return asked or _EPOCHS
        steps = -(-examples // self._settings.batch_size)
        return max(_EPOCHS, -(-_LEAST_STEPS // max(1, steps)))

    def _load_extra(self, arrays: Arrays) -> nn.Module:
        network = self._network()
        if not np.array_equal(arrays["fingerprint"], self._fingerprint):
            raise ValueError(f"the model was trained from another encoder than {self._options.text.encoder!r} is now")
        return network

    def _save_extra(self) -> dict[str, NDArray[np.generic]]:
        return {"fingerprint": self._fingerprint}

    def _network(self) -> TransformerNetwork:
        text = self._options.text
        pretrained = self._load_pretrained(text.encoder)
        self._reader = Tokens(pretrained.tokenizer, token_limit(pretrained, text.max_tokens))
        self._fingerprint = fingerprint(pretrained, weights=text.lora_rank > 0)
        classes = len(self._problem.classes)
        return TransformerNetwork(pretrained, classes=classes, dropout=self._settings.dropout, lora_rank=text.lora_rank)

    def _encode(self, texts: Sequence[str]) -> list[Numbers]:
        return self._tokens().of(texts)

    def _tensors(self, texts: Sequence[Numbers]) -> dict[str, torch.Tensor]:
        return self._tokens().tensors(texts)

    def _tokens(self) -> Tokens:
        if self._reader is None:
            raise ValueError("the model was neither fitted nor loaded")
        return self._reader
