"""CNN and BiLSTM: the networks compute what they say, whatever else is in the batch, and learn from few texts."""

import numpy as np
import pytest
import torch

from learner.models.bilstm import RecurrentClassifier, RecurrentNetwork
from learner.models.cnn import WIDTHS, ConvolutionalClassifier, ConvolutionalNetwork
from learner.options import ModelOptions, NeuralOptions, TextOptions
from learner.ports import Inputs, TrainingSet
from learner.problem import Problem, Task
from sealpool.errors import Cancelled, FailedPrecondition, InvalidArgument

CPU = torch.device("cpu")
MODELS = {"cnn": ConvolutionalClassifier, "bilstm": RecurrentClassifier}
COLOURS = ("red", "green", "blue")
FILLERS = ["the", "a", "of", "stone", "sky", "old", "new", "big", "small", "far", "near", "bird", "tree", "sea"]


def texts_of(count, *, seed=0):
    """Texts of 0 to 9 fillers around one colour, and the colours' numbers."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, len(COLOURS), count)
    texts = []
    for colour in colours:
        words = list(rng.choice(FILLERS, rng.integers(0, 10)))
        words.insert(rng.integers(0, len(words) + 1), COLOURS[colour])
        texts.append(" ".join(words))
    return texts, colours


def targets_of(colours, task):
    if task is Task.MULTILABEL:
        return np.stack([colours == 0, colours != 1], axis=1)
    return (colours == 0).astype(np.int64) if task is Task.BINARY else colours


def problem_of(task):
    return Problem(task=task, classes=("x", "y", "z") if task is Task.MULTICLASS else ("x", "y"))


def make(name, task=Task.MULTICLASS, *, text=None, **neural):
    chosen = NeuralOptions(**{"hidden": (8,), "epochs": 12, "batch_size": 16, "learning_rate": 0.02, **neural})
    options = ModelOptions(name=name, neural=chosen, text=TextOptions(embedding=12, **(text or {})))
    return MODELS[name](options, problem_of(task))


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


@pytest.fixture(scope="module", params=sorted(MODELS))
def fitted(request):
    texts, colours = texts_of(60)
    model = make(request.param)
    fit(model, texts, colours)
    return model


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_rule_on_words_is_learnt(name, task):
    texts, colours = texts_of(80)
    model = make(name, task)
    fit(model, texts, targets_of(colours, task))
    more, answers = texts_of(100, seed=1)
    probabilities = model.predict_proba(inputs_of(more)).numpy()
    predicted = probabilities > 0.5 if task is Task.MULTILABEL else probabilities.argmax(axis=1)
    assert (predicted == targets_of(answers, task)).mean() > 0.9
    if task is not Task.MULTILABEL:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_what_a_text_gets_does_not_depend_on_the_others(fitted):
    texts = ["", "red", "unheard of words", "the red " * 40, *texts_of(9, seed=2)[0], "!"]
    together = fitted.predict_proba(inputs_of(texts))
    alone = torch.cat([fitted.predict_proba(inputs_of([text])) for text in texts])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_no_texts_give_no_probabilities(fitted):
    assert fitted.predict_proba(inputs_of([])).shape == (0, 3)
    assert len(fitted.features(inputs_of([]))) == 0


def test_features_are_what_the_last_layer_sees(fitted):
    texts = inputs_of(texts_of(7)[0])
    weights, bias = fitted.head()
    logits = fitted.features(texts) @ weights.T + bias
    torch.testing.assert_close(torch.softmax(logits, dim=1), fitted.predict_proba(texts), rtol=0, atol=1e-5)


def test_a_model_that_was_saved_predicts_the_same(fitted):
    texts = inputs_of(["", *texts_of(20, seed=3)[0]])
    again = make(fitted._options.name)
    again.load(fitted.save(), device=CPU)
    assert torch.equal(again.predict_proba(texts), fitted.predict_proba(texts))


def test_arrays_of_another_model_are_refused(fitted):
    with pytest.raises(ValueError, match="not those of this model"):
        make(fitted._options.name, hidden=(9,)).load(fitted.save(), device=CPU)
    with pytest.raises(KeyError):
        make(fitted._options.name).load({}, device=CPU)


def test_samples_of_dropout_differ_and_each_is_one_network_for_all_texts(fitted):
    texts = ["", *texts_of(11, seed=4)[0]]
    first, second = fitted.dropped_proba(inputs_of(texts), seed=5, samples=2, rate=0.5)
    (part,) = fitted.dropped_proba(inputs_of(texts[3:5]), seed=5, samples=1, rate=0.5)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(part, first[3:5], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_same_seed_makes_the_same_model(name):
    texts, colours = texts_of(30)
    models = [make(name, epochs=2) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit(model, texts, colours, seed=seed)
    first, same, other = (model.predict_proba(inputs_of(texts)) for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_warm_fit_goes_on_and_keeps_the_words(name):
    texts, colours = texts_of(40)
    first, second = make(name, epochs=4), make(name, epochs=4)
    begun = fit(first, texts, colours)
    second.load(first.save(), device=CPU)
    assert fit(second, [*texts, "brandnew red"], np.append(colours, 0), warm=True).loss < begun.loss
    assert second._vocabulary.words == first._vocabulary.words
    fit(second, [*texts, "brandnew red"], np.append(colours, 0))
    assert "brandnew" in second._vocabulary.words


@pytest.mark.parametrize("name", sorted(MODELS))
def test_texts_without_words_are_trained_on(name):
    model = make(name, epochs=2)
    assert np.isfinite(fit(model, ["", " ", "red", ""], np.array([0, 1, 2, 1])).loss)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_words_past_the_limit_are_not_read(name):
    texts, colours = texts_of(30)
    model = make(name, epochs=2, text={"max_tokens": 3, "vocabulary": 9})
    fit(model, texts, colours)
    long, cut = (model.predict_proba(inputs_of([text])) for text in ("red the a green", "red the a"))
    assert torch.equal(long, cut)
    assert len(model._vocabulary.words) == 9


@pytest.mark.parametrize("name", sorted(MODELS))
def test_items_without_texts_are_refused_by_the_models_name(name):
    with pytest.raises(FailedPrecondition, match=name):
        fit(make(name), None, np.array([0, 1]))
    model = make(name, epochs=1)
    fit(model, ["red", "green"], np.array([0, 1]))
    with pytest.raises(FailedPrecondition, match=name):
        model.predict_proba(Inputs(vectors=torch.zeros(2, 0)))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_stops_when_the_caller_left(name):
    asked = iter([False, False])
    with pytest.raises(Cancelled):
        fit(make(name), *texts_of(60), cancelled=lambda: next(asked, True))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_more_than_one_hidden_number_is_refused(name):
    with pytest.raises(InvalidArgument, match=r"header\.model\.neural\.hidden"):
        make(name, hidden=(8, 8))


@pytest.mark.parametrize("length", [0, 1, 2, 4, 9])
def test_the_convolutions_are_kims(length):
    torch.manual_seed(length)
    network = ConvolutionalNetwork(vocabulary=20, embedding=6, filters=40, classes=2, dropout=0.0).eval()
    words = torch.zeros(1, 12, dtype=torch.int64)  # padding beyond the text
    words[0, :length] = torch.randint(1, 20, (length,))
    table = network.embedding.table.weight.detach().numpy()
    expected = []
    for width, layer in zip(WIDTHS, network.filters, strict=True):
        empty = np.zeros((width - 1, 6), np.float32)
        text = np.concatenate([empty, table[words[0, : max(length, 1)].numpy()], empty])
        weights, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        windows = [text[start : start + width].T for start in range(len(text) - width + 1)]
        maps = [(weights * window).sum(axis=(1, 2)) + bias for window in windows]
        expected.append(np.maximum(np.max(maps, axis=0), 0))
    with torch.no_grad():
        np.testing.assert_allclose(network.features(words)[0].numpy(), np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_the_recurrent_network_pools_the_states_of_a_text_run_by_itself(length):
    torch.manual_seed(length)
    network = RecurrentNetwork(vocabulary=20, embedding=6, units=4, classes=2, dropout=0.0).eval()
    words = torch.zeros(2, 8, dtype=torch.int64)
    words[0, :length] = torch.randint(1, 20, (length,))
    words[1] = torch.randint(1, 20, (8,))
    with torch.no_grad():
        states = network.lstm(network.embedding.table.weight[words[:1, : max(length, 1)]])[0][0].numpy()
        got = network.features(words)[0].numpy()
    np.testing.assert_allclose(got, np.concatenate([states.max(axis=0), states.mean(axis=0)]), atol=1e-6)


def test_an_unknown_word_says_nothing_before_training():
    network = ConvolutionalNetwork(vocabulary=9, embedding=3, filters=2, classes=2, dropout=0.0)
    assert not network.embedding(torch.tensor([0, 1])).any()
