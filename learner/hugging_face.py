"""What loads models of transformers, imported when it is first needed."""

import threading
from types import ModuleType
from typing import Any

import torch

_IMPORTING = threading.Lock()


def transformers() -> ModuleType:
    """Return the transformers package, with the classes AutoModel, AutoTokenizer and AutoImageProcessor in it.

    Imported here, because it takes seconds that a learner which neither embeds nor fine-tunes should not pay at start.
    One thread at a time: the package fills itself in as names are asked for, and of two threads that ask it first at
    once, one gets an ImportError.
    """
    with _IMPORTING:
        import transformers as package

        for name in ("AutoImageProcessor", "AutoModel", "AutoTokenizer"):
            getattr(package, name)
    return package


def load_model(name: str, *, dtype: torch.dtype, allow_download: bool) -> Any:
    """Return the model of a directory or name, from the hub only if allowed; raises what from_pretrained raises."""
    local = {"local_files_only": not allow_download}
    # Where peft is installed, an adapter of that name is looked for too, with options of its own: without them on the
    # hub, six times in 23 s, whatever the model's say.
    return transformers().AutoModel.from_pretrained(
        name, dtype=dtype, trust_remote_code=False, adapter_kwargs=local, **local
    )
