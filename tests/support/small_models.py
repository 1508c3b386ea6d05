"""Models that are trained in no time, an encoder of random weights that knows a dozen words, and texts for it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sealpool.v1 import common_pb2

COLOURS = ("red", "green", "blue")
_FILLERS = ("the", "a", "stone", "sky", "old", "new")
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *_FILLERS)


def write_tiny_encoder(folder: Path) -> str:
    """Save the encoder and its tokenizer, and return where."""
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(_WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)


def text_of(number: int) -> str:
    """Return a text of the colour number % 3."""
    return f"the {_FILLERS[number % 5]} {COLOURS[number % 3]} {_FILLERS[number % 4]}"


def small_model(name: str, *, encoder: str = "", **changes: object) -> common_pb2.ModelSpec:
    """Return a model that soon tells three clusters, or colours, apart; `changes` are fields of ModelSpec."""
    spec = common_pb2.ModelSpec(name=name)
    if name != "logistic_regression":
        spec.neural.epochs = 60 if name == "mlp" else 20
        spec.neural.learning_rate = 0.02
    if name in ("mlp", "cnn", "bilstm"):
        spec.neural.hidden.append(8 if name == "mlp" else 4)
    if name in ("cnn", "bilstm"):
        spec.text.embedding = 8
    if name == "transformer":
        spec.text.encoder = encoder
    spec.MergeFrom(common_pb2.ModelSpec(**changes))  # type: ignore[arg-type]
    return spec
