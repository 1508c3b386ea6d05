"""Words are found in any script, and numbered by how often they come."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.models.text.words import PADDING, SPECIAL, UNKNOWN, Vocabulary, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP, now!", ["don't", "stop", ",", "now", "!"]),
        ("l’été 2024", ["l’été", "2024"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("مَرحَبًا بك", ["مَرحَبًا", "بك"]),
        ("你好 abc", ["你", "好", "abc"]),
        ("hi😀there", ["hi", "😀", "there"]),
        ("it''s", ["it", "'", "'", "s"]),
        (" \n\t ", []),
        ("", []),
    ],
)
def test_words_are_runs_of_letters_and_single_signs(text, words):
    assert words_of(text) == words


def test_the_most_frequent_words_are_kept_and_equals_go_by_their_letters():
    assert Vocabulary.of(["b a d", "B c", "a b e"], 4).words == ("b", "a", "c", "d")


@given(st.lists(st.text(max_size=12), max_size=6), st.randoms(use_true_random=False), st.integers(1, 9))
def test_a_vocabulary_depends_on_the_texts_and_not_on_their_order(texts, random, size):
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert Vocabulary.of(shuffled, size).words == Vocabulary.of(texts, size).words


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_a_vocabulary_that_was_saved_numbers_words_the_same(texts):
    vocabulary = Vocabulary.of(texts, 100)
    again = Vocabulary.load(vocabulary.save())
    assert again.words == vocabulary.words
    for text in texts:
        assert again.encode(text, 99).tolist() == vocabulary.encode(text, 99).tolist()


def test_words_have_numbers_beyond_the_special_ones_and_others_are_unknown():
    vocabulary = Vocabulary.of(["red red green"], 9)
    assert vocabulary.encode("Green red blue", 9).tolist() == [SPECIAL + 1, SPECIAL, UNKNOWN]
    assert len(vocabulary) == SPECIAL + 2
    assert PADDING not in vocabulary.encode("Green red blue", 9)


def test_a_text_is_cut_to_its_first_words():
    assert len(Vocabulary.of(["a b c"], 9).encode("a b c a", 3)) == 3


def test_what_is_no_vocabulary_is_refused():
    with pytest.raises(KeyError):
        Vocabulary.load({})
    with pytest.raises(ValueError, match="not bytes"):
        Vocabulary.load({"vocabulary": np.zeros(3, np.int64)})
    with pytest.raises(ValueError, match="twice"):
        Vocabulary.load({"vocabulary": np.frombuffer(b"a\na", np.uint8)})
