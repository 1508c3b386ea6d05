"""The Classifier port over a torch module: what mlp, cnn, bilstm and transformer share."""

import copy
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learner.models.neural.dropout import one_mask
from learner.models.neural.loop import Collate, Examples, fit_module
from learner.models.neural.loop_settings import filled
from learner.models.neural.seeding import seeded
from learner.models.neural.steps import Portions
from learner.options import ModelOptions
from learner.ports import Arrays, CancelCheck, FitReport, Inputs, Progress, TrainingSet
from learner.problem import Problem
from learner.weighting import check_classes, item_weights, no_samples
from sealpool.errors import FailedPrecondition

_PARAMETER = "module."
_EXTRA = "extra."


class ModuleClassifier:
    """Trains a module and predicts with it, in float32; see learner.ports.Classifier.

    A subclass gives `_build` and `_collate`, where it reads texts also `needs_text`, and what `load` needs beside the
    parameters by `_save_extra` and `_load_extra`. The module has `forward(**inputs)`, which returns logits (b, c),
    `features(**inputs)` (b, h) and `head`, its last nn.Linear. `_device` is where inputs and module lie.
    """

    defaults: Mapping[str, object] = MappingProxyType({})
    """What `filled` takes where the campaign leaves the choice."""
    predicted_at_once = 256
    """Rows of a prediction that go through the module at once."""

    def __init__(self, options: ModelOptions, problem: Problem) -> None:
        self._options = options
        self._problem = problem
        self._settings = filled(options.neural, **self.defaults)
        self._device = torch.device("cpu")
        self._module: nn.Module | None = None
        self._precise: nn.Module | None = None

    @property
    def needs_text(self) -> bool:
        """Whether it reads texts."""
        return False

    @property
    def prior_precision(self) -> float | None:
        """None: weight decay in AdamW is not the precision of a prior."""
        return None

    def _build(self, training: TrainingSet) -> nn.Module:
        """Return a new module on the CPU, its parameters drawn from torch's generator, which is seeded."""
        raise NotImplementedError

    def _collate(self, inputs: Inputs, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return the module's inputs for some rows, on `_device`."""
        raise NotImplementedError

    def _collator(self, inputs: Inputs) -> Collate:
        """Return `_collate` of `inputs`; a place to do once, not each epoch, what does not depend on the rows."""
        return lambda rows: self._collate(inputs, rows)

    def _lengths(self, inputs: Inputs) -> NDArray[np.int64] | None:
        """Return the lengths (n,) of the texts, roughly, or None: like lengths then go together."""
        del inputs
        return None

    def _save_extra(self) -> dict[str, NDArray[np.generic]]:
        """Return what `_load_extra` needs to make an untrained module of the same shape."""
        return {}

    def _load_extra(self, arrays: Arrays) -> nn.Module:
        """Return a module on the CPU of the shape of the one that was saved; its parameters are set after that."""
        raise NotImplementedError

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
        """Train from new parameters, or if `warm` go on from those that it has."""
        check_classes(self._problem, training.targets)
        self._check_texts(training)
        self._device = device
        if not warm or self._module is None:
            self._module = seeded(lambda: self._build(training), seed)
        self._module.to(device)
        self._precise = None
        return fit_module(
            self._module,
            self._examples(training, balanced=self._options.balanced),
            None if validation is None else self._examples(validation, balanced=False),
            problem=self._problem,
            settings=self._settings,
            seed=seed,
            device=device,
            progress=progress,
            cancelled=cancelled,
        )

    def predict_proba(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, c) probabilities."""
        return self._probabilities(self.logits(inputs))

    def sample_proba(self, inputs: Inputs, *, seed: int) -> torch.Tensor:
        """Raise FailedPrecondition: the probabilities alone give no samples."""
        del inputs, seed
        raise no_samples()

    def dropped_proba(self, inputs: Inputs, *, seed: int, samples: int, rate: float | None) -> Iterator[torch.Tensor]:
        """Yield (n, c) probabilities of each sample, with one set of dropout masks held for all rows."""
        module, collate = self._module_for(inputs), self._collator(inputs)
        for sample in range(samples):
            with one_mask(module, seed, sample, rate=rate):
                logits = self._through(module, inputs, collate)
            yield self._probabilities(logits)

    def logits(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, c), what the last layer gives."""
        return self._through(self._module_for(inputs), inputs, self._collator(inputs))

    def features(self, inputs: Inputs) -> torch.Tensor:
        """Return (n, h), what the last layer sees."""
        features = cast(Callable[..., torch.Tensor], self._module_for(inputs).features)
        return self._through(features, inputs, self._collator(inputs), width=self.head()[0].shape[1])

    def head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last layer's weights (c, h) and bias (c,)."""
        head = cast(nn.Linear, self._fitted().head)
        return head.weight.detach(), head.bias.detach()

    def save(self) -> dict[str, NDArray[np.generic]]:
        """Return parameters and buffers, and what the subclass adds."""
        arrays: dict[str, NDArray[np.generic]] = {
            _PARAMETER + name: tensor.detach().cpu().numpy().copy()
            for name, tensor in self._fitted().state_dict().items()
        }
        return arrays | {_EXTRA + name: array for name, array in self._save_extra().items()}

    def load(self, arrays: Arrays, *, device: torch.device) -> None:
        """Become the model that was saved."""
        extra = {name.removeprefix(_EXTRA): array for name, array in arrays.items() if name.startswith(_EXTRA)}
        module = seeded(lambda: self._load_extra(extra), 0)
        state = {
            name.removeprefix(_PARAMETER): torch.tensor(array)
            for name, array in arrays.items()
            if name.startswith(_PARAMETER)
        }
        try:
            module.load_state_dict(state)
        except RuntimeError as error:  # torch's for names or shapes that differ
            raise ValueError(f"the parameters are not those of this model: {error}") from error
        self._device, self._precise = device, None
        self._module = module.to(device).eval()

    def _check_texts(self, training: TrainingSet) -> None:
        if self.needs_text and training.texts is None:
            raise FailedPrecondition("this model reads texts, and the examples have none", field="examples")

    def _examples(self, items: TrainingSet, *, balanced: bool) -> Examples:
        inputs = Inputs(vectors=torch.from_numpy(np.require(items.vectors, np.float32, "W")), texts=items.texts)
        if not self.needs_text:
            inputs = Inputs(vectors=inputs.vectors.to(self._device))
        weights = item_weights(self._problem, items, balanced=balanced)
        return Examples(
            targets=items.targets,
            weights=(weights if self._problem.multilabel else weights[:, 0]).astype(np.float32),
            collate=self._collator(inputs),
            lengths=self._lengths(inputs),
        )

    @torch.no_grad()
    def _through(
        self, module: Callable[..., torch.Tensor], inputs: Inputs, collate: Collate, *, width: int | None = None
    ) -> torch.Tensor:
        """Return what `module` gives for all rows, (n, width)."""
        dtype = torch.float64 if self._is_precise(inputs) else torch.float32
        result = torch.empty(len(inputs), width or len(self._problem.classes), dtype=dtype, device=self._device)
        if not len(inputs):
            return result
        lengths = self._lengths(inputs)
        order = np.arange(len(inputs)) if lengths is None else np.argsort(-lengths, kind="stable")

        def put(rows: NDArray[np.int64]) -> None:
            result[torch.from_numpy(rows).to(self._device)] = module(**collate(rows)).to(dtype)

        Portions(self.predicted_at_once).over(order, put)
        return result

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits) if self._problem.multilabel else torch.softmax(logits, dim=1)

    def _is_precise(self, inputs: Inputs) -> bool:
        return not self.needs_text and inputs.vectors.dtype == torch.float64

    def _module_for(self, inputs: Inputs) -> nn.Module:
        """Return the module, or for float64 vectors a copy of it in float64."""
        module = self._fitted()
        if not self._is_precise(inputs):
            return module
        if self._precise is None:
            self._precise = copy.deepcopy(module).double()
        return self._precise

    def _fitted(self) -> nn.Module:
        if self._module is None:
            raise ValueError("the model was neither fitted nor loaded")
        return self._module
