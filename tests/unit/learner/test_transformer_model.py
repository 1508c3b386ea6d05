"""A tiny random encoder, fine-tuned: pooling, dropout, adapters, what is saved, and what is handed on."""

import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from learner.models.transformer import TransformerClassifier
from learner.options import ModelOptions, NeuralOptions, TextOptions
from learner.ports import Inputs, TrainingSet
from learner.problem import Problem, Task
from sealpool.errors import Cancelled, FailedPrecondition, InvalidArgument

CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "the", "a", "stone", "sky", "tree", "old", "new"]
COLOURS = WORDS[4:7]


def tokenizer_of(*, special: bool = True, padding: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    padding_token = {"pad_token": "[PAD]"} if padding else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **padding_token)


def write_encoder(folder, *, seed=0, layers=2, **tokenizer):
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        attention_probs_dropout_prob=0.3,
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    tokenizer_of(**tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def texts_of(count, *, seed=0):
    """Texts of 0 to 5 fillers around one colour, and the colours' numbers."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 3, count)
    texts = []
    for colour in colours:
        words = list(rng.choice(WORDS[7:], rng.integers(0, 6)))
        words.insert(rng.integers(0, len(words) + 1), COLOURS[colour])
        texts.append(" ".join(words))
    return texts, colours


def targets_of(colours, task):
    if task is Task.MULTILABEL:
        return np.stack([colours == 0, colours != 1], axis=1)
    return (colours == 0).astype(np.int64) if task is Task.BINARY else colours


def make(encoder, task=Task.MULTICLASS, *, lora_rank=0, max_tokens=0, **neural):
    options = ModelOptions(
        name="transformer",
        neural=NeuralOptions(**{"epochs": 2, "batch_size": 16, "learning_rate": 0.003, **neural}),
        text=TextOptions(encoder=encoder, lora_rank=lora_rank, max_tokens=max_tokens),
    )
    return TransformerClassifier(
        options, Problem(task=task, classes=("x", "y", "z") if task is Task.MULTICLASS else ("x", "y"))
    )


def fit(model, texts, targets, *, warm=False, seed=0, cancelled=lambda: False):
    return model.fit(
        TrainingSet(vectors=np.zeros((len(targets), 0), np.float32), targets=targets, texts=texts),
        validation=None,
        warm=warm,
        seed=seed,
        device=CPU,
        progress=lambda *_: None,
        cancelled=cancelled,
    )


def inputs_of(texts):
    return Inputs(vectors=torch.zeros(len(texts), 0), texts=texts)


@pytest.fixture(scope="module")
def fitted(encoder):
    model = make(encoder)
    fit(model, *texts_of(48))
    return model


@pytest.mark.parametrize("task", list(Task))
def test_a_rule_on_words_is_learnt(encoder, task):
    texts, colours = texts_of(64)
    model = make(encoder, task, epochs=20, learning_rate=0.01)
    fit(model, texts, targets_of(colours, task))
    more, answers = texts_of(60, seed=1)
    probabilities = model.predict_proba(inputs_of(more)).numpy()
    predicted = probabilities > 0.5 if task is Task.MULTILABEL else probabilities.argmax(axis=1)
    assert (predicted == targets_of(answers, task)).mean() > 0.9


def test_what_a_text_gets_does_not_depend_on_the_others(fitted):
    texts = ["", "red", "unheard of", "the red sky " * 30, *texts_of(9, seed=2)[0]]
    together = fitted.predict_proba(inputs_of(texts))
    alone = torch.cat([fitted.predict_proba(inputs_of([text])) for text in texts])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert fitted.predict_proba(inputs_of([])).shape == (0, 3)


def test_many_tokens_go_through_in_parts(fitted, monkeypatch):
    texts = inputs_of(["", *texts_of(30, seed=6)[0], "red " * 10])
    whole, widths = fitted.features(texts), []
    monkeypatch.setattr("learner.models.transformer._TOKENS_AT_ONCE", 40)
    hook = fitted._module.encoder.register_forward_pre_hook(
        lambda _module, _positional, given: widths.append(given["input_ids"].numel()), with_kwargs=True
    )
    parts = fitted.features(texts)
    hook.remove()
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    assert len(widths) > 5
    assert max(widths) <= 40


def test_features_are_the_mean_of_the_handed_on_encoders_token_states(fitted):
    tokenizer, model = fitted.encoder()
    for text in ("red", "the old green tree"):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        got = fitted.features(inputs_of([text, "the a the a the a the a"]))[0]
        torch.testing.assert_close(got, states.mean(dim=0), rtol=0, atol=1e-5)


def test_the_last_layer_makes_probabilities_of_features(fitted):
    texts = inputs_of(texts_of(7)[0])
    weights, bias = fitted.head()
    logits = fitted.features(texts) @ weights.T + bias
    torch.testing.assert_close(torch.softmax(logits, dim=1), fitted.predict_proba(texts), rtol=0, atol=1e-5)


def test_the_fine_tuned_encoder_is_written_and_read_as_any_other(fitted, encoder, tmp_path):
    tokenizer, model = fitted.encoder()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokens = AutoModel.from_pretrained(tmp_path), tokenizer("red sky", return_tensors="pt")
    before = AutoModel.from_pretrained(encoder)
    with torch.no_grad():
        states, same, published = (some(**tokens).last_hidden_state for some in (model, again, before))
    assert torch.equal(states, same)
    assert not torch.allclose(states, published, atol=1e-3)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(WORDS)


def test_samples_of_dropout_reach_the_encoder_and_each_is_one_network_for_all_texts(fitted):
    texts = ["", *texts_of(11, seed=4)[0]]
    first, second = fitted.dropped_proba(inputs_of(texts), seed=5, samples=2, rate=None)
    (part,) = fitted.dropped_proba(inputs_of(texts[3:5]), seed=5, samples=1, rate=None)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(part, first[3:5], rtol=0, atol=1e-6)
    rates = [part.rate for name, part in fitted._module.encoder.named_modules() if hasattr(part, "rate")]
    assert rates == [0.1] * 5  # the embeddings', and two a layer


def test_dropout_of_attention_weights_is_off(fitted):
    left = [part for part in fitted._module.modules() if isinstance(part, nn.Dropout)]
    assert [part.p for part in left] == [0.0, 0.0]


def test_the_same_seed_makes_the_same_model_and_each_fit_begins_with_the_published_weights(encoder):
    texts, colours = texts_of(32)
    first, other = make(encoder), make(encoder)
    fit(first, texts, colours, seed=1)
    fit(other, texts, colours, seed=2)
    expected = first.predict_proba(inputs_of(texts))
    assert not torch.equal(other.predict_proba(inputs_of(texts)), expected)
    fit(other, texts, colours, seed=1)
    assert torch.equal(other.predict_proba(inputs_of(texts)), expected)


def test_a_warm_fit_goes_on(fitted, encoder):
    texts, colours = texts_of(48)
    model = make(encoder)
    model.load(fitted.save(), device=CPU)
    assert fit(model, texts, colours, warm=True).loss < fit(model, texts, colours).loss


@pytest.mark.parametrize(
    ("asked", "count", "warm", "expected"), [(0, 160, False, 6), (0, 160, True, 5), (2, 160, False, 2)]
)
def test_few_labels_are_gone_through_more_often_unless_the_caller_says(encoder, asked, count, warm, expected):
    model = make(encoder, epochs=asked)
    assert fit(model, *texts_of(count), warm=warm).iterations == expected


def test_a_model_that_was_saved_predicts_the_same(fitted, encoder):
    texts = inputs_of(texts_of(20, seed=3)[0])
    again = make(encoder)
    again.load(fitted.save(), device=CPU)
    assert torch.equal(again.predict_proba(texts), fitted.predict_proba(texts))


def test_a_checkpoint_of_another_encoder_is_refused(fitted, tmp_path):
    other = make(write_encoder(tmp_path, layers=1))
    with pytest.raises(ValueError, match="another encoder"):
        other.load(fitted.save(), device=CPU)
    with pytest.raises(KeyError):
        make(str(tmp_path)).load({}, device=CPU)


def test_texts_are_cut_to_what_the_encoder_and_the_caller_allow(fitted, encoder):
    long, cut = (fitted.features(inputs_of([text])) for text in ("red " * 50, "red " * 10))
    assert torch.equal(long, cut)
    short = make(encoder, max_tokens=5)
    short.load(fitted.save(), device=CPU)
    assert torch.equal(short.features(inputs_of(["red " * 50])), short.features(inputs_of(["red " * 3])))


def test_an_empty_text_of_a_tokenizer_without_special_tokens_has_features(tmp_path):
    model = make(write_encoder(tmp_path, special=False), epochs=1)
    fit(model, ["red", "", "green"], np.array([0, 1, 2]))
    features = model.features(inputs_of([""]))
    assert torch.isfinite(features).all()
    assert features.any()


def test_items_without_texts_are_refused(fitted, encoder):
    with pytest.raises(FailedPrecondition, match="'transformer' reads texts"):
        fit(make(encoder), None, np.array([0, 1]))
    with pytest.raises(FailedPrecondition, match="'transformer' reads texts"):
        fitted.predict_proba(Inputs(vectors=torch.zeros(2, 0)))


def test_an_encoder_must_be_named():
    with pytest.raises(InvalidArgument, match=r"header\.model\.text\.encoder"):
        make("")


@pytest.mark.parametrize("name", ["./nowhere", "nobody/nothing-of-that-name"])
def test_an_encoder_that_is_not_on_this_machine_is_refused(name):
    with pytest.raises(FailedPrecondition, match="cache") as caught:
        fit(make(name), ["a", "b"], np.array([0, 1]))
    assert caught.value.field == "header.model.text.encoder"


def test_an_encoder_without_a_padding_token_is_refused(tmp_path):
    with pytest.raises(FailedPrecondition, match="padding"):
        fit(make(write_encoder(tmp_path, padding=False)), ["a", "b"], np.array([0, 1]))


def test_training_stops_when_the_caller_left(encoder):
    asked = iter([False, False])
    with pytest.raises(Cancelled):
        fit(make(encoder), *texts_of(60), cancelled=lambda: next(asked, True))


def test_adapters_need_peft(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(FailedPrecondition, match=r"sealpool\[lora\]") as caught:
        fit(make(encoder, lora_rank=2), ["a", "b"], np.array([0, 1]))
    assert caught.value.field == "header.model.text.lora_rank"


@pytest.fixture(scope="module")
def adapted(encoder):
    pytest.importorskip("peft", reason="LoRA is an extra: peft is not installed")
    model = make(encoder, lora_rank=2, epochs=30, learning_rate=0.02)
    fit(model, *texts_of(64))
    return model


def test_adapters_learn_while_the_published_weights_stay(adapted, encoder):
    more, answers = texts_of(60, seed=1)
    assert (adapted.predict_proba(inputs_of(more)).argmax(dim=1).numpy() == answers).mean() > 0.9
    published = AutoModel.from_pretrained(encoder).state_dict()
    name = "encoder.layer.0.intermediate.dense.{}weight"
    kept = adapted._module.encoder.state_dict()[name.format("base_layer.")]
    assert torch.equal(kept, published[name.format("")])


def test_only_adapters_and_head_are_saved_and_the_model_is_the_same_again(adapted, encoder):
    arrays, texts = adapted.save(), inputs_of(texts_of(20, seed=3)[0])
    parts = [name for name in arrays if "lora_" not in name and "fingerprint" not in name]
    assert sorted(parts) == ["module.head.bias", "module.head.weight"]
    again = make(encoder, lora_rank=2)
    again.load(arrays, device=CPU)
    assert torch.equal(again.predict_proba(texts), adapted.predict_proba(texts))
    fit(again, *texts_of(16), warm=True)


def test_adapters_are_refused_beside_other_published_weights(adapted, tmp_path):
    with pytest.raises(ValueError, match="another encoder"):
        make(write_encoder(tmp_path, seed=1), lora_rank=2).load(adapted.save(), device=CPU)


def test_the_encoder_handed_on_has_its_adapters_merged(adapted, tmp_path):
    tokenizer, model = adapted.encoder()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        states = AutoModel.from_pretrained(tmp_path)(**tokenizer("red sky", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(adapted.features(inputs_of(["red sky"]))[0], states[0].mean(dim=0), rtol=0, atol=1e-5)
