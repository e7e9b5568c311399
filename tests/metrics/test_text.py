"""What the model says by itself, against the answer. The harness of test_example_metric.py has the rest."""

from __future__ import annotations

import logging
import pickle

import pytest
from metrics.classifier import LABELS, probability_of

from unlearun.errors import UnlearunError
from unlearun.metrics import (
    ROUGE,
    EvaluationSuite,
    Fluency,
    SetTraits,
    ShortAnswer,
    UnstemmedROUGE,
    VerbatimMemorization,
)


def compute(metric, generated, reference):
    metric.update([generated], [reference])
    return metric.compute()


def rouge(generated, reference):
    return {name: value.item() for name, value in compute(ROUGE(), generated, reference).items()}


# ---- verbatim and ROUGE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generated", "same"),
    [("Oslo.", 1), (" Oslo.\n", 1), ("Oslo", 0), ("oslo.", 0), ("In Oslo.", 0), ("Oslo. Or so.", 0), ("", 0)],
)
def test_verbatim_is_the_answer_and_nothing_else(generated, same):
    assert compute(VerbatimMemorization(), generated, "Oslo.").item() == same


@pytest.mark.parametrize(
    ("said", "answer", "recall"),
    [
        ("Ада родилась в Осло.", "Ада родилась в Бергене.", 3 / 4),
        ("艾达出生在奥斯陆", "艾达出生在卑尔根", 5 / 8),  # a character is a word
        ("Η Άντα γεννήθηκε", "η άντα γεννήθηκε!", 1),
        ("Ada was born in Oslo", "Ада родилась в Осло.", 0),
        ("Mr García", "Mr Garcés", 2 / 3),  # of mr, garc and s: Latin letters are those of the package
    ],
)
def test_words_of_every_script_count(said, answer, recall):
    assert rouge(said, answer)["rougeL_recall"] == pytest.approx(recall)
    assert compute(UnstemmedROUGE(), said, said).item() == 1


def test_an_answer_inside_longer_text():
    """Three of the eight words are the answer's: nothing is lost, so recall is 1; F1 is 2 · 3 / (8 + 3) = 6/11.

    Of pairs 2 of 7 are the answer's 2: F1 is 2 · 2 / (7 + 2) = 4/9.
    """
    generated, answer = "well the cat sat on the red mat", "The cat sat."
    assert compute(VerbatimMemorization(), generated, answer).item() == 0
    found = rouge(generated, answer)
    for kind, f1 in {"rouge1": 6 / 11, "rouge2": 4 / 9, "rougeL": 6 / 11}.items():
        assert found[f"{kind}_recall"] == 1
        assert found[f"{kind}_f1"] == pytest.approx(f1)


def test_rouge_by_hand():
    """Said: the red cat sat. Right: the cat sat on the mat, six words and five pairs.

    Words in common: the, cat, sat: recall 3/6, F1 2 · 3 / (4 + 6). Pairs: only (cat, sat), of 3 and 5: 1/5 and
    2 · 1 / (3 + 5). The longest common subsequence is the cat sat: as words.
    """
    assert rouge("the red cat sat", "the cat sat on the mat") == pytest.approx(
        {
            "rouge": 0.5,
            "rouge1_recall": 0.5,
            "rouge1_f1": 0.6,
            "rouge2_recall": 0.2,
            "rouge2_f1": 0.25,
            "rougeL_recall": 0.5,
            "rougeL_f1": 0.6,
        }
    )


def test_rouge_knows_order_only_where_it_should():
    """mat the on: three of the answer's words, no pair, and a common subsequence of one."""
    found = rouge("mat the on", "on the mat")
    assert [found[f"rouge{kind}_recall"] for kind in "12L"] == pytest.approx([1, 0, 1 / 3])


def test_without_stemmer_an_ending_counts():
    """Only novels is the same word: one of three and of three."""
    generated, answer = "authors writing novels", "Author writes novels"
    assert compute(UnstemmedROUGE(), generated, answer).item() == pytest.approx(1 / 3)
    assert rouge(generated, answer)["rougeL_f1"] == 1


@pytest.mark.parametrize(
    ("generated", "answer"), [("authors writing novels", "Author writes novel"), ("IT IS, Oslo!", "it is oslo")]
)
def test_rouge_compares_stems_and_neither_case_nor_punctuation(generated, answer):
    assert set(rouge(generated, answer).values()) == {1.0}


@pytest.mark.parametrize(("generated", "answer"), [("", "Oslo"), ("Bergen", "Oslo"), ("Oslo", "")])
def test_rouge_of_nothing_in_common_is_0(generated, answer):
    assert set(rouge(generated, answer).values()) == {0.0}


def test_rouge_leaves_the_logging_of_the_program_alone(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    rouge("oslo", "oslo")
    assert logging.root.handlers == []


def test_rouge_is_the_mean_over_examples():
    """Recall 1 and 1/2: the mean is not that of all words."""
    metric = ROUGE()
    metric.update(["oslo"], ["oslo"], [0])
    metric.update(["the cat"], ["the cat sat on"], [1])
    assert metric.compute()["rouge"].item() == pytest.approx(0.75)


# ---- short answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("generated", "held"), [("It is OSLO, I think", 1), ("Os lo", 0), ("", 0)])
def test_a_short_answer_stands_in_the_text(generated, held):
    assert compute(ShortAnswer(), generated, "Oslo").item() == held


# ---- fluency ----------------------------------------------------------------------------------------------------

TEXTS = ["the cat sat", "", "red sun by the sea in the sun", "mat", "  "]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_fluency_is_what_a_classifier_says_of_each_text(classifier, label, batch_size):
    """However many there are at a time; an empty text is no good text."""
    metric = Fluency(classifier, label, batch_size)
    metric.update(TEXTS, [""] * len(TEXTS))
    found = [record["fluency"] for record in metric.per_example().values()]
    expected = [probability_of(classifier, label, text) for text in TEXTS]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[1] == found[4] == 0
    assert len(set(found)) == 4


def test_fluency_is_pickled_without_its_classifier(classifier):
    metric = Fluency(classifier)
    empty = len(pickle.dumps(metric))
    metric.update(["the cat"], [""])
    again = pickle.dumps(metric)
    assert len(again) < empty + 2000  # the classifier alone has ten times as many bytes
    again = pickle.loads(again)
    again.update(["the sun"], [""])
    expected = [probability_of(classifier, "clean", text) for text in ("the cat", "the sun")]
    assert again.compute().item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_the_classifier_is_no_part_of_the_suite(classifier):
    """It is in no checkpoint, and no optimizer or strategy gets to see it."""
    choice = {"class_path": "unlearun.metrics.Fluency", "init_args": {"model": classifier}}
    suite = EvaluationSuite({"retain": SetTraits()}, [choice])
    suite.update_texts("retain", [3], ["the cat"], ["the mat"])
    assert not list(suite.parameters())
    assert not suite.state_dict()
    found = suite.compute()
    expected = probability_of(classifier, "clean", "the cat")
    assert found.summary == pytest.approx({"retain/fluency": expected}, rel=1e-5)


def test_a_label_that_the_classifier_lacks_is_an_error(classifier):
    with pytest.raises(UnlearunError, match=r"'claen'.*Did you mean 'clean'.*clean, noise, word salad"):
        Fluency(classifier, label="claen").update(["the cat"], [""])


def test_a_classifier_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UnlearunError, match=r"nothing"):
        Fluency(str(tmp_path / "nothing")).update(["the cat"], [""])
