from __future__ import annotations

import pytest

from unlearun.data import Item, Keys, Row
from unlearun.data.rows import check_rows, without_short_texts
from unlearun.errors import UnlearunError

GOOD = {"question": "Who?", "answer": "Anna."}


def check(*rows, keys: Keys | None = None, needs_alternate: bool = False):
    named = [Row(values, f"f.json, line {number}") for number, values in enumerate(rows, start=1)]
    return check_rows(named, keys or Keys(), "the forget set", needs_alternate)


def refusal(*rows, **settings) -> str:
    with pytest.raises(UnlearunError) as caught:
        check(*rows, **settings)
    return str(caught.value)


def test_a_row_becomes_an_item_and_other_keys_are_no_concern():
    row = {
        **GOOD,
        "paraphrased_answer": "It is Anna.",
        "perturbed_answer": ["Ben.", "Carl."],
        "short_answer": "Anna",
        "id": 7,
    }
    item = Item("f.json, line 1", "Who?", "Anna.", (), "It is Anna.", ("Ben.", "Carl."), "Anna")
    assert check(row) == [item]


def test_keys_can_have_other_names():
    row = {"q": "Who?", "a": "Anna.", "other": "Ben.", "p": "It is Anna.", "w": "Carl."}
    keys = Keys(question="q", answer="a", alternate="other", paraphrase="p", perturbed="w")
    (item,) = check(row, keys=keys, needs_alternate=True)
    assert (item.question, item.answer, item.alternates) == ("Who?", "Anna.", ("Ben.",))
    assert (item.paraphrase, item.perturbed) == ("It is Anna.", ("Carl.",))


def test_plain_text_is_a_row_without_a_question():
    items = check({"text": "Once."}, {**GOOD, "text": "unused"})
    assert [(item.question, item.answer) for item in items] == [(None, "Once."), ("Who?", "Anna.")]
    (item,) = check({"body": "Then."}, keys=Keys(text="body"))
    assert (item.question, item.answer) == (None, "Then.")


def test_a_missing_key_says_what_is_there_and_what_may_be_meant():
    message = refusal({"question": "Who?", "anwser": "Anna."})
    assert "f.json, line 1: key 'answer' is missing (found: question, anwser). Did you mean 'anwser'?" in message
    assert "answer_key" in message


@pytest.mark.parametrize("value", ["", " \n\t"])
@pytest.mark.parametrize("key", ["question", "answer", "paraphrased_answer"])
def test_empty_text_is_an_error(key, value):
    assert f"f.json, line 1: key {key!r} is empty" in refusal({**GOOD, key: value})


def test_empty_plain_text_is_an_error():
    assert "key 'text' is empty" in refusal({"text": " "})


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), (None, "NoneType"), (["Anna."], "list"), (True, "bool")])
def test_the_wrong_type_is_named(value, kind):
    assert f"line 1: key 'answer' is {kind} ({value!r}); expected text, in quotes" in refusal({**GOOD, "answer": value})


def test_half_a_surrogate_pair_is_found_before_the_tokenizer_chokes_on_it():
    assert "key 'answer' holds half a surrogate pair" in refusal({**GOOD, "answer": "Anna \ud83d"})
    assert check({**GOOD, "answer": "Anna \U0001f600"})[0].answer == "Anna \U0001f600"


@pytest.mark.parametrize("value", [[], {}, 3])
def test_wrong_answers_are_a_list_with_something_in_it(value):
    assert "key 'perturbed_answer' is" in refusal({**GOOD, "perturbed_answer": value})


def test_a_column_without_a_value_is_a_key_that_is_not_there():
    """A table gives every row every column."""
    optional = ("perturbed_answer", "paraphrased_answer", "short_answer", "topic", "text")
    assert check({**GOOD, **dict.fromkeys(optional)}) == check(GOOD)
    assert check({"question": None, "answer": None, "text": "A text."}) == check({"text": "A text."})
    assert "key 'answer' is NoneType (None)" in refusal({**GOOD, "answer": None})


def test_a_bad_wrong_answer_is_named_by_its_place():
    message = refusal({**GOOD, "perturbed_answer": ["Ben.", "", 3]})
    assert "entry 1 is empty" in message
    assert "entry 2 is int" in message


def test_the_alternate_key_is_wanted_only_where_it_is_needed():
    keys = Keys(alternate="idk")
    assert check(GOOD, keys=keys)[0].alternates == ()
    assert "key 'idk' is missing" in refusal(GOOD, keys=keys, needs_alternate=True)
    assert check({**GOOD, "idk": "No idea."}, keys=keys, needs_alternate=True)[0].alternates == ("No idea.",)


def test_all_problems_come_at_once_the_first_ten_and_a_count():
    """Six rows lack both keys: twelve problems, of which two are only counted."""
    message = refusal(*[{"x": 1}] * 6, GOOD)
    assert message.startswith("the forget set: 12 problems\n")
    assert message.count("is missing") == 10
    assert message.endswith("... and 2 more")


# ---- multiple choice --------------------------------------------------------------------------------------------

CHOOSE = {"question": "Which one binds? ", "choices": ["Iron", " Zinc", "Lead"], "answer": 1}


def test_choices_stand_under_the_question_and_their_letters_are_the_answers():
    (item,) = check(CHOOSE)
    assert item.question == "Which one binds?\nA. Iron\nB. Zinc\nC. Lead"
    assert (item.answer, item.perturbed) == ("B", ("A", "C"))


def test_a_choice_has_what_other_rows_have():
    row = {**CHOOSE, "topic": "metals", "short_answer": "B", "paraphrased_answer": "It is B", "other": "I do not know"}
    (item,) = check(row, keys=Keys(alternate="other"), needs_alternate=True)
    assert (item.topic, item.short_answer, item.paraphrase) == ("metals", "B", "It is B")
    assert item.alternates == ("I do not know",)


def test_choices_beside_an_answer_in_words_are_no_concern():
    (item,) = check({**CHOOSE, "answer": "Zinc"})
    assert (item.question, item.answer, item.perturbed) == ("Which one binds? ", "Zinc", ())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"answer": 3}, "key 'answer' is 3; expected the place of the right one of the choices, 0 to 2"),
        ({"answer": -1}, "key 'answer' is -1; expected the place"),
        ({"answer": True}, "key 'answer' is True; expected the place"),
        ({"answer": 1.0}, "key 'answer' is 1.0; expected the place"),
        ({"choices": ["Iron"], "answer": 0}, "key 'choices' has 1 texts; expected 2 to 26 answers"),
        ({"choices": ["Iron", 5], "answer": 0}, "key 'choices', entry 1 is int (5); expected text"),
        ({"choices": [], "answer": 0}, "key 'choices' is []; expected a list of texts"),
    ],
)
def test_a_choice_that_is_none_is_explained(other, message):
    assert message in refusal({**CHOOSE, **other})


def test_choices_without_an_answer():
    row = {key: value for key, value in CHOOSE.items() if key != "answer"}
    assert "key 'answer' is missing" in refusal(row)


# ---- short texts ------------------------------------------------------------------------------------------------


def kept(*rows, least):
    return [row.values for row in without_short_texts([Row(values, "f") for values in rows], Keys(), least, "it")]


def test_short_texts_are_left_out_and_questions_are_not():
    rows = [{"text": " = Oslo = \n"}, {"text": ""}, {"text": "Ten chars."}, GOOD, {"text": "and", "question": "Who?"}]
    assert kept(*rows, least=10) == rows[2:]
    assert kept(*rows, least=0) == rows  # an empty one is then an error, as everywhere


def test_what_is_no_text_is_left_to_the_check():
    assert kept({"text": 5}, least=10) == [{"text": 5}]


def test_nothing_but_short_texts_is_explained():
    with pytest.raises(UnlearunError, match="it: all 2 texts have fewer than 9 characters; lower min_characters"):
        kept({"text": "a"}, {"text": ""}, least=9)
