"""Encoders of texts and images: which is which, what does not fit, and what becomes of a full GPU."""

import io
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from PIL import Image
from prometheus_client import CollectorRegistry
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from learner import vision
from learner.embedding import Embedder
from learner.encoders import EmbedOptions, Encoders, Pooling
from learner.metrics import LearnerMetrics
from learner.text_encoder import Budget
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

TEXTS = ["a b c", "a", "c c c c c c c c c", "", "b a"]
LOG = structlog.wrap_logger(structlog.ReturnLogger())


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer, model = tiny_bert(folder)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


def tiny_bert(folder: Path):
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32), BertModel(config)


def make_encoders(**more) -> Encoders:
    return Encoders(torch.device("cpu"), keep=2, batch_tokens=64, allow_download=False, log=LOG, **more)


def embedder(**more) -> Embedder:
    metrics = LearnerMetrics(CollectorRegistry())
    return Embedder(make_encoders(**more), metrics=metrics, window_texts=2, max_text_bytes=100)


def picture(colour: tuple[int, int, int], *, kind: str = "PNG", size: tuple[int, int] = (20, 12)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


RED, BLUE = picture((200, 10, 10)), picture((10, 10, 200))


def test_an_image_is_the_pooled_last_layer_of_its_model(vit_folder: str) -> None:
    model = ViTModel.from_pretrained(vit_folder).eval()
    processor = ViTImageProcessor.from_pretrained(vit_folder)
    pixels = processor(images=[Image.open(io.BytesIO(each)) for each in (RED, BLUE)], return_tensors="pt")
    with torch.no_grad():
        last = model(**pixels).last_hidden_state.numpy()
    encoder = make_encoders().get(vit_folder)
    for pooling, expected in ((Pooling.MEAN, last.mean(axis=1)), (Pooling.CLS, last[:, 0])):
        options = EmbedOptions(encoder=vit_folder, pooling=pooling, normalize=False)
        np.testing.assert_allclose(encoder.embed([RED, BLUE], options), expected, atol=1e-5)
    unit = encoder.embed([RED, BLUE], EmbedOptions(encoder=vit_folder))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)


def test_images_of_every_size_mode_and_format_are_taken(vit_folder: str) -> None:
    grey = io.BytesIO()
    Image.new("LA", (9, 30), (77, 128)).save(grey, "PNG")
    vectors = (
        make_encoders()
        .get(vit_folder)
        .embed(
            [RED, grey.getvalue(), picture((1, 2, 3), kind="JPEG", size=(50, 3)), picture((1, 2, 3), kind="GIF")],
            EmbedOptions(encoder=vit_folder),
        )
    )
    assert vectors.shape == (4, 16)
    assert np.isfinite(vectors).all()


def test_a_convolutional_model_has_a_mean_and_no_first_token(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[8], depths=[1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = make_encoders().get(str(tmp_path))
    assert encoder.embed([RED], EmbedOptions(encoder="")).shape == (1, 8)
    with pytest.raises(FailedPrecondition, match="no first token; use the mean"):
        encoder.embed([RED], EmbedOptions(encoder="", pooling=Pooling.CLS))


@pytest.mark.parametrize("broken", [b"", b"no image", RED[: len(RED) // 2]])
def test_bytes_that_are_no_image_are_named_by_their_position(vit_folder: str, broken: bytes) -> None:
    with pytest.raises(InvalidArgument, match="position 1") as raised:
        make_encoders().get(vit_folder).embed([RED, broken], EmbedOptions(encoder=vit_folder))
    assert raised.value.field == "images"


def test_positions_of_images_count_over_the_whole_stream(vit_folder: str) -> None:
    with pytest.raises(InvalidArgument, match="position 70"):
        list(embedder().embed([RED] * 70 + [b"x"], EmbedOptions(encoder=vit_folder)))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    vit_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "MAX_PIXELS", 239)
    encoder = make_encoders().get(vit_folder)
    with pytest.raises(ResourceExhausted, match="image 0 with 240 pixels"):
        encoder.embed([RED], EmbedOptions(encoder=vit_folder))


def test_texts_and_images_go_to_encoders_of_their_kind_alone(text_folder: str, vit_folder: str) -> None:
    with pytest.raises(InvalidArgument, match="reads images") as raised:
        list(embedder().embed(["a"], EmbedOptions(encoder=vit_folder)))
    assert raised.value.field == "texts"
    with pytest.raises(InvalidArgument, match="reads texts") as raised:
        list(embedder().embed([RED], EmbedOptions(encoder=text_folder)))
    assert raised.value.field == "images"


def test_a_stream_is_answered_in_its_order_window_by_window(text_folder: str, vit_folder: str) -> None:
    options = EmbedOptions(encoder=text_folder)
    chunks = list(embedder().embed(iter(TEXTS), options))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    whole = make_encoders().get(text_folder).embed(TEXTS, options)
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-5)
    images = [RED, BLUE] * 40
    chunks = list(embedder().embed(iter(images), EmbedOptions(encoder=vit_folder)))
    assert sum(map(len, chunks)) == 80
    np.testing.assert_allclose(np.concatenate(chunks)[::2], np.tile(chunks[0][0], (40, 1)), atol=1e-5)


def test_what_is_wrong_with_a_text_is_said_after_the_windows_before_it(text_folder: str) -> None:
    answers = embedder().embed(["a", "b", "a" * 101], EmbedOptions(encoder=text_folder))
    assert len(next(answers)) == 2
    with pytest.raises(ResourceExhausted, match="max_text_bytes"):
        next(answers)


class Crowded:
    """Memory for `room` rows of cost 1."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        self.tried.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.from_numpy(rows.astype(np.float32))[:, None]


class Heard:
    """A log that a test reads."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, object]] = []

    def warning(self, _message: str, **fields: object) -> None:
        self.warnings.append(fields)


def test_out_of_gpu_memory_halves_the_batch_for_good_and_says_so() -> None:
    model, log = Crowded(3), Heard()
    budget = Budget(8, name="bert", log=log)
    order = np.arange(10)[::-1].copy()
    vectors = budget.embed(order, np.ones(10, np.int64), model)
    np.testing.assert_array_equal(vectors[:, 0], np.arange(10))
    assert model.tried == [8, 4, 2, 2, 2, 2, 2]
    assert log.warnings == [{"encoder": "bert", "batch": 4}, {"encoder": "bert", "batch": 2}]
    assert budget.size == 2


def test_a_budget_larger_than_the_batch_is_halved_from_the_batch() -> None:
    model = Crowded(3)
    Budget(1_000, name="bert", log=Heard()).embed(np.arange(5), np.ones(5, np.int64), model)
    assert model.tried == [5, 2, 2, 1]


def test_an_item_that_does_not_fit_by_itself_is_an_error() -> None:
    with pytest.raises(ResourceExhausted, match="GPU memory"):
        Budget(4, name="bert", log=Heard()).embed(np.arange(2), np.ones(2, np.int64), Crowded(0))


class Transformer:
    """A classifier that has an encoder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def encoder(self):
        return tiny_bert(self._folder)


def test_an_encoder_comes_out_of_the_checkpoint_of_a_transformer(tmp_path: Path, text_folder: str) -> None:
    def classifier_of(campaign: str, round_number: int) -> object:
        if campaign == "unknown":
            raise NotFound("checkpoint", campaign)
        return Transformer(tmp_path) if round_number else object()

    encoders = make_encoders(classifier_of=classifier_of)
    options = EmbedOptions(encoder="")
    vectors = encoders.of_checkpoint("news", 1).embed(TEXTS, options)
    np.testing.assert_allclose(vectors, encoders.get(text_folder).embed(TEXTS, options), atol=1e-5)
    with pytest.raises(FailedPrecondition, match="is no transformer"):
        encoders.of_checkpoint("news", 0)
    with pytest.raises(NotFound):
        encoders.of_checkpoint("unknown", 1)
