"""Every character of these texts is one token, whose id is its place in CHARACTERS; END is eos and pad alike."""

from __future__ import annotations

import pytest
from conftest import CHARACTERS, make_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from unlearun.data import Formatter, Item, collate, expected_text
from unlearun.errors import UnlearunError
from unlearun.models import load_tokenizer

END = len(CHARACTERS)
BOS = END + 1
QUESTION = Item("f.json, line 3", "Who?", "Anna.")
PROMPT = "Question: Who?\nAnswer:"  # 22 tokens
CHAT = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def spell(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


def text_item(text: str) -> Item:
    return Item("t.json, line 1", None, text)


def make_bos_tokenizer(single: str = "<bos> $A") -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<bos>", BOS), ("<eos>", END)]
    )
    return tokenizer


def make_chat_tokenizer(named: bool = True) -> PreTrainedTokenizerFast:
    """The template's end is not eos; tokenizers say that it is special in one of two ways."""
    tokenizer = make_tokenizer(CHAT)
    marks = [AddedToken(mark, special=True, normalized=False) for mark in ("<|im_start|>", "<|im_end|>")]
    if named:
        tokenizer.add_special_tokens({"extra_special_tokens": marks})
    else:
        tokenizer.add_tokens(marks, special_tokens=True)
    return tokenizer


# ---- the plain template -----------------------------------------------------------------------------------------


def test_prompt_answer_and_one_labelled_eos(tokenizer):
    example, cut = Formatter(tokenizer).format(QUESTION, 5)
    assert example.input_ids == spell(PROMPT) + spell(" Anna.") + [END]
    assert (example.start, example.labelled) == (22, 7)
    assert (example.example_id, example.ends, cut) == (5, True, False)
    assert example.item is QUESTION


def test_the_template_and_the_answer_can_be_others(tokenizer):
    formatter = Formatter(tokenizer, prompt="Q: {question} {x} A:")
    example, _ = formatter.format(Item("", "Is {this} it?", "No."), 0, answer="Yes.")
    assert example.input_ids == spell("Q: Is {this} it? {x} A:") + spell(" Yes.") + [END]


def test_prompt_and_answer_are_tokenised_apart_where_joint_tokens_would_cross_the_boundary():
    """The only merge is ":" + " ". Apart: Q : | ␣ y END. Jointly: Q :␣ y, where no cut gives prompt and answer."""
    pieces = {"Q": 0, ":": 1, " ": 2, "y": 3, ": ": 4, "<eos>": 5}
    inner = Tokenizer(models.BPE(vocab=pieces, merges=[(":", " ")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    jointly = tokenizer("Q: y")["input_ids"]
    assert jointly == [0, 4, 3]
    prompt = tokenizer("Q:")["input_ids"]
    assert jointly[: len(prompt)] != prompt  # a boundary counted from the prompt alone would stand one token too far

    example, _ = Formatter(tokenizer, prompt="{question}:").format(Item("", "Q", "y"), 0)
    assert example.input_ids == [0, 1, 2, 3, 5]
    assert example.start == 2


def test_pad_equal_to_eos_leaves_the_real_eos_labelled(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    formatter = Formatter(tokenizer)
    examples = [formatter.format(item, 0)[0] for item in (QUESTION, Item("", "Who?", "Anna and her aunt."))]
    labels = collate(examples, tokenizer.pad_token_id).labels
    assert (labels == END).sum(-1).tolist() == [1, 1]
    assert labels[0, 28:].tolist() == [END] + [-100] * 13


def test_bos_stands_before_the_prompt_once_and_no_eos_behind_it():
    for single in ("<bos> $A", "<bos> $A <eos>"):
        tokenizer = make_bos_tokenizer(single)
        assert tokenizer("A")["input_ids"][0] == BOS
        example, _ = Formatter(tokenizer).format(QUESTION, 0)
        assert example.input_ids == [BOS, *spell(PROMPT), *spell(" Anna."), END]
        assert example.start == 23


def test_a_tokenizer_without_eos_is_an_error(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(UnlearunError, match=r"no eos token.*in Python: tokenizer\.eos_token"):
        Formatter(tokenizer).format(QUESTION, 0)


# ---- too long ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_length", "answer", "ends"),
    [(29, [*spell(" Anna."), END], True), (28, spell(" Anna."), False), (24, spell(" A"), False), (23, [62], False)],
)
def test_an_answer_is_cut_to_what_room_there_is_and_then_has_no_eos(tokenizer, max_length, answer, ends):
    """22 tokens of prompt, 6 of answer, 1 eos: 29 fit exactly, and 23 leave the space before the answer."""
    example, cut = Formatter(tokenizer, max_length).format(QUESTION, 0)
    assert example.input_ids == spell(PROMPT) + answer
    assert (example.ends, cut) == (ends, not ends)
    assert example.start == 22


def test_a_prompt_without_room_for_an_answer_is_an_error_with_line_and_remedy(tokenizer):
    with pytest.raises(UnlearunError, match=r"f\.json, line 3: the prompt has 22 tokens.*raise max_length \(now 22\)"):
        Formatter(tokenizer, 22).format(QUESTION, 0)


def test_a_cut_can_be_an_error(tokenizer):
    assert not Formatter(tokenizer, 29, refuse_long=True).format(QUESTION, 0)[1]
    with pytest.raises(UnlearunError, match=r"f\.json, line 3: prompt and answer have 29 tokens, max_length is 28"):
        Formatter(tokenizer, 28, refuse_long=True).format(QUESTION, 0)


def test_all_rows_that_cannot_be_kept_are_named_at_once(tokenizer):
    items = [Item(f"f.json, line {n}", "Who is it then?", "Anna.") for n in range(12)]
    with pytest.raises(UnlearunError) as caught:
        Formatter(tokenizer, 23).format_all([*items, QUESTION], "the forget set")
    assert str(caught.value).startswith("the forget set: 12 problems\n")
    assert "line 9: the prompt has 33 tokens" in str(caught.value)
    assert str(caught.value).endswith("... and 2 more")


def test_cuts_are_counted_and_rows_numbered(tokenizer):
    items = [QUESTION, Item("", "Who?", "Jo."), Item("", "Who?", "Anna and Ben.")]
    examples, cuts = Formatter(tokenizer, 28).format_all(items, "the forget set")
    assert cuts == 2
    assert [example.example_id for example in examples] == [0, 1, 2]


# ---- many rows at once ------------------------------------------------------------------------------------------

AWKWARD = (
    "Anna.",
    "  two spaces before, two behind  ",
    "naïve 東京 \U0001f600 e\u0301",
    "<|im_end|> <eos> [/INST]",
    "\n\n",
    "a",
    "word " * 90,
    "{question} %s {0}",
)


@pytest.mark.parametrize("kind", ["characters", "bos", "bos and eos", "chat", "bpe", "bpe that says so"])
def test_rows_have_the_same_tokens_as_one_at_a_time(kind, monkeypatch):
    """In blocks of seven rows and 400 characters, questions and texts mixed: as the tokenizer's own call gives each."""
    monkeypatch.setattr("unlearun.data.formatting._ROWS", 7)
    monkeypatch.setattr("unlearun.data.formatting._CHARACTERS", 400)
    if kind.startswith("bpe"):
        tokenizer = load_tokenizer("pocket")
        tokenizer.chat_template = CHAT if kind == "bpe that says so" else None
    elif kind == "chat":
        tokenizer = make_chat_tokenizer()
    else:
        single = {"bos": "<bos> $A", "bos and eos": "<bos> $A <eos>"}
        tokenizer = make_bos_tokenizer(single[kind]) if kind in single else make_tokenizer()
    pairs = [(question, answer) for question in AWKWARD for answer in AWKWARD]
    items = [Item(f"row {n}", None if n % 5 == 4 else question, answer) for n, (question, answer) in enumerate(pairs)]
    formatter = Formatter(tokenizer, 1000)
    examples, cuts = formatter.format_all(items, "")
    assert cuts == 0
    assert len(examples) == len(items)  # each text is one piece
    for example, item in zip(examples, items, strict=True):
        assert example.item is item
        if item.question is None:
            bos = [BOS] if kind.startswith("bos") else []
            assert example.input_ids == bos + tokenizer(item.answer, add_special_tokens=False)["input_ids"] + [
                formatter.end_id
            ]
            continue
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": item.question}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            prompt, answer = tokenizer(text, add_special_tokens=False)["input_ids"], item.answer
        else:
            prompt, answer = tokenizer(f"Question: {item.question}\nAnswer:")["input_ids"], f" {item.answer}"
            prompt = prompt[:-1] if kind == "bos and eos" else prompt
        assert example.input_ids == prompt + tokenizer(answer, add_special_tokens=False)["input_ids"] + [
            formatter.end_id
        ]
        assert example.start == len(prompt)
        assert formatter.format(item, example.example_id) == (example, False)


# ---- the chat template ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["named special", "special where it was added"])
def test_the_chat_templates_own_end_is_labelled_once_and_nothing_follows_it(named):
    tokenizer = make_chat_tokenizer(named)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    example, _ = Formatter(tokenizer).format(QUESTION, 0)
    prompt = [start, *spell("user\nWho?"), end, *spell("\n"), start, *spell("assistant\n")]
    assert example.input_ids == [*prompt, *spell("Anna."), end]  # no space before the answer, no eos behind it
    assert example.start == len(prompt)
    assert example.ends
    assert end != tokenizer.eos_token_id
    assert collate([example], 0).labels.tolist() == [[-100] * len(prompt) + [*spell("Anna."), end]]


def test_a_system_prompt_stands_first():
    tokenizer = make_chat_tokenizer()
    formatter = Formatter(tokenizer, system="Be brief.")
    assert tokenizer.decode(formatter.prompt_ids("Who?")).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert "system" not in tokenizer.decode(Formatter(tokenizer).prompt_ids("Who?"))


def test_a_chat_template_that_writes_no_special_token_after_the_answer_leaves_eos(tokenizer):
    tokenizer.chat_template = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}"
    example, _ = Formatter(tokenizer).format(QUESTION, 0)
    assert example.input_ids == spell("user: Who?\n") + spell("Anna.") + [END]


def test_the_chat_template_can_be_switched_off():
    tokenizer = make_chat_tokenizer()
    example, _ = Formatter(tokenizer, chat=False).format(QUESTION, 0)
    assert example.input_ids == spell(PROMPT) + spell(" Anna.") + [END]


def test_bos_of_a_chat_template_is_not_doubled():
    tokenizer = make_bos_tokenizer()
    tokenizer.chat_template = "<bos>{% for turn in messages %}{{ turn['content'] }}\n{% endfor %}"
    assert Formatter(tokenizer).prompt_ids("Who?") == [BOS, *spell("Who?\n")]


# ---- plain text -------------------------------------------------------------------------------------------------


def chunked(formatter: Formatter, text: str) -> list[tuple[list[int], int, bool]]:
    return [(list(e.input_ids), e.labelled, e.ends) for e in formatter.format_all([text_item(text)], "")[0]]


def test_a_text_is_cut_into_pieces_and_only_the_last_has_eos(tokenizer):
    """Seven characters and eos in pieces of four: all labelled but the first of each, which nothing predicts."""
    pieces = chunked(Formatter(tokenizer, 4), "abcdefg")
    assert pieces == [(spell("abcd"), 3, False), ([*spell("efg"), END], 3, True)]


def test_after_bos_every_token_of_a_text_is_labelled():
    """Seven characters and eos in pieces of three behind bos."""
    pieces = chunked(Formatter(make_bos_tokenizer(), 4), "abcdefg")
    assert pieces == [
        ([BOS, *spell("abc")], 3, False),
        ([BOS, *spell("def")], 3, False),
        ([BOS, *spell("g"), END], 2, True),
    ]


@pytest.mark.parametrize(("bos", "text"), [(False, "abcdefgh"), (True, "abcdef")])
def test_an_eos_never_stands_alone(bos, text):
    """Eight characters in pieces of four, six in pieces of three behind bos: eos would have a piece of its own."""
    pieces = chunked(Formatter(make_bos_tokenizer() if bos else make_tokenizer(), 4), text)
    assert len(pieces) == 2
    assert [ends for _, _, ends in pieces] == [False, False]
    assert [token for ids, _, _ in pieces for token in ids if token != BOS] == spell(text)


def test_a_short_text_is_one_piece(tokenizer):
    assert chunked(Formatter(tokenizer), "ab") == [([*spell("ab"), END], 2, True)]
    assert chunked(Formatter(tokenizer, 2), "a") == [([*spell("a"), END], 1, True)]


@pytest.mark.parametrize("length", range(1, 14))
@pytest.mark.parametrize("bos", [False, True])
def test_no_token_of_a_text_is_lost_or_doubled(bos, length):
    text = CHARACTERS[:length]
    pieces = chunked(Formatter(make_bos_tokenizer() if bos else make_tokenizer(), 5), text)
    assert [token for ids, _, _ in pieces for token in ids if token not in (BOS, END)] == spell(text)
    assert all(len(ids) <= 5 and labelled == len(ids) - 1 > 0 for ids, labelled, _ in pieces)
    assert all((ids[-1] == END) == ends for ids, _, ends in pieces)
    assert not any(ends for _, _, ends in pieces[:-1])


def test_pieces_and_questions_are_numbered_together(tokenizer):
    examples, cuts = Formatter(tokenizer, 30).format_all([text_item("a" * 70), QUESTION, text_item("b")], "")
    assert [example.example_id for example in examples] == [0, 1, 2, 3, 4]
    assert [example.item.question for example in examples] == [None, None, None, "Who?", None]
    assert cuts == 0  # a text in pieces is not a cut


@pytest.mark.parametrize("kind", ["normalizer", "metaspace"])
def test_a_tokenizer_that_brings_a_space_of_its_own_gets_no_second_one(kind):
    """As those of Llama 2 and Mistral: "▁A" is how they write " A", and what joint tokenisation gives after ":"."""
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", "▁", "A", "▁A", "n", "a", ":"])}
    inner = Tokenizer(models.BPE(vocabulary, [("▁", "A")], unk_token="<unk>"))
    if kind == "normalizer":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    ids = Formatter(tokenizer).answer_ids("Anna")
    assert tokenizer.convert_ids_to_tokens(ids) == ["▁A", "n", "n", "a"]
    assert tokenizer(": Anna", add_special_tokens=False)["input_ids"][-4:] == ids


def test_further_values_reach_the_chat_template():
    """Llama 3's template would write today's date, so that tomorrow's prompts would be others."""
    tokenizer = make_chat_tokenizer()
    tokenizer.chat_template = "{{ date_string | default('today') }}\n" + CHAT
    said = [
        tokenizer.decode(Formatter(tokenizer, chat_values=values).prompt_ids("Who?"))
        for values in ((), (("date_string", "1 May"),))
    ]
    assert said[0].startswith("today\n<|im_start|>")
    assert said[1] == said[0].replace("today", "1 May")


# ---- examples before the question, and prompts that go on -------------------------------------------------------

SHOTS = (("One?", "Yes."), ("Two?", "No."))


def test_shots_go_before_the_question_in_the_plain_template(tokenizer):
    formatter = Formatter(tokenizer, prompt="Q: {question} A:", shots=SHOTS)
    prompt = "Q: One? A: Yes.\n\nQ: Two? A: No.\n\nQ: Who? A:"
    example, _ = formatter.format(QUESTION, 0)
    assert example.input_ids == spell(prompt) + spell(" Anna.") + [END]
    assert example.start == len(prompt)


def test_shots_are_earlier_turns_of_a_chat():
    tokenizer = make_chat_tokenizer()
    formatter = Formatter(tokenizer, system="Be brief.", shots=SHOTS)
    said = tokenizer.decode(formatter.prompt_ids("Who?"))
    turns = ["system\nBe brief.", "user\nOne?", "assistant\nYes.", "user\nTwo?", "assistant\nNo.", "user\nWho?"]
    assert said == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"
    assert formatter.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert formatter.until_next_question("a\n\nb") == "a\n\nb"


@pytest.mark.parametrize(
    ("said", "kept"),
    [("Anna.\n\nQ: Two?", "Anna."), ("Anna. Q: Two?", "Anna. "), ("\n\nAnna.", ""), ("Anna.\nYes", "Anna.\nYes")],
)
def test_what_a_model_makes_up_behind_its_answer_is_cut_off_where_it_saw_shots(said, kept, tokenizer):
    assert Formatter(tokenizer, prompt="Q: {question} A:", shots=SHOTS).until_next_question(said) == kept
    assert Formatter(tokenizer, prompt="Q: {question} A:").until_next_question(said) == said


def test_a_template_without_words_before_the_question_stops_at_an_empty_line_alone(tokenizer):
    formatter = Formatter(tokenizer, prompt="{question}:", shots=SHOTS)
    assert formatter.until_next_question("Anna: yes\n\nb") == "Anna: yes"


@pytest.mark.parametrize("prompt", ["{question} ", "{question}\n"])
def test_a_template_that_ends_with_a_space_gets_no_second_one(prompt, tokenizer):
    example, _ = Formatter(tokenizer, prompt=prompt).format(QUESTION, 0)
    assert example.input_ids == spell(prompt.replace("{question}", "Who?")) + spell("Anna.") + [END]


def test_an_answer_that_continues_its_prompt_has_nothing_between(tokenizer):
    example, _ = Formatter(tokenizer, prompt="{question}", continues=True).format(QUESTION, 0)
    assert example.input_ids == [*spell("Who?Anna."), END]
    assert expected_text(Formatter(tokenizer, prompt="{question}", continues=True), example, 3) == "Ann"
    assert expected_text(Formatter(tokenizer, prompt="{question}"), example, 3) == "Anna."
