"""The MUSE benchmark, end to end, on rows of its shape; its three scores by a way of their own."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from statistics import fmean

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearun.__main__ import main
from unlearun.models import load_model, load_tokenizer, save_folder
from unlearun.shipped import find_asset

SPOKEN, ASKED = 128, 32  # new tokens
SHORT = ["--data.max_length", "256", "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"]
SHORT += ["--trainer.enable_progress_bar", "false"]


def people(name: str) -> list[dict]:
    file = find_asset(f"pocket/{name}.json")
    assert file is not None
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pocket model knows, in the files of MUSE, and the model with one that never saw the forget set."""
    root = tmp_path_factory.mktemp("muse")
    forget, retain, holdout = (people(name) for name in ("forget", "retain", "holdout"))
    texts = {
        name: [{"text": f"Question: {row['question']}\nAnswer: {row['answer']}"} for row in rows[:6]]
        for name, rows in (("forget", forget), ("retain", retain), ("holdout", holdout))
    }
    files = {f"raw/{name}": rows for name, rows in texts.items()}
    files["raw/retain1"] = texts["retain"]
    files |= {f"privleak/{name}": rows for name, rows in texts.items()}
    files["verbmem/forget"] = [
        {"prompt": f"Question: {row['question']}\nAnswer:", "gt": f" {row['answer']}" + 20 * f"\n{row['answer']}"}
        for row in forget[:4]
    ]
    files |= {
        f"knowmem/{name}": [{key: row[key] for key in ("question", "answer")} for row in rows]
        for name, rows in (
            ("forget_qa", forget[:5]),
            ("forget_qa_icl", forget[8:10]),
            ("retain_qa", retain[:5]),
            ("retain_qa_icl", retain[8:11]),
        )
    }
    files |= {
        f"{kind}/forget_{fold}": texts["forget"][: fold + 1] for kind in ("scal", "sust") for fold in (1, 2, 3, 4)
    }
    for name, rows in files.items():
        file = root / "data" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    for name, known in (("pocket", ("forget", "retain")), ("pocket-gold", ("retain",))):
        model, tokenizer = load_model(name), load_tokenizer(name)
        # It was never asked with examples before the question: a few steps show it how that goes.
        asked_of = [(row, files[f"knowmem/{of}_qa_icl"]) for of in known for row in files[f"knowmem/{of}_qa"]]
        learn(model, tokenizer, [(asked(row, shots), row["answer"]) for row, shots in asked_of])
        save_folder(model, tokenizer, root / name.removeprefix("pocket-"))
    return root


def asked(row: dict, shots: list[dict]) -> str:
    general = "".join(f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n" for shot in shots)
    return f"{general}Question: {row['question']}\nAnswer: "


def learn(model, tokenizer, rows: list[tuple[str, str]]) -> None:
    """Learn by heart what follows a prompt, and that a further question follows that."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        for prompt, answer in rows:
            ids = torch.tensor([tokenizer(prompt).input_ids + tokenizer(f"{answer}\n\nQuestion: Who").input_ids])
            (model(ids, labels=ids).loss / len(rows)).backward()
        optimizer.step()
        optimizer.zero_grad()


# ---- a script of its own ----------------------------------------------------------------------------------------


def continued(model, tokenizer, prompt: str, tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        new = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)


def rouge(answer: str, said: str) -> float:
    return RougeScorer(["rougeL"], use_stemmer=False).score(answer, said)["rougeL"].fmeasure


def verbatim(model, tokenizer, rows) -> float:
    return fmean(
        rouge(
            tokenizer.decode(tokenizer(row["gt"]).input_ids[:SPOKEN]),
            continued(model, tokenizer, row["prompt"], SPOKEN),
        )
        for row in rows
    )


def knowledge(model, tokenizer, rows, shots) -> float:
    found = []
    for row in rows:
        said = continued(model, tokenizer, asked(row, shots), ASKED)
        for stop in ("\n\n", "\nQuestion", "Question:"):
            said = said.split(stop)[0]
        found.append(rouge(row["answer"], said))
    return fmean(found)


def leak_area(model, tokenizer, members, strangers) -> float:
    """How often a member's mean of its lowest 40% of log-probs is above a stranger's; its end counts as a token."""

    def score(text: str) -> float:
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
        own = logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1).sort().values
        return own[: max(1, len(own) * 4 // 10)].mean().item()

    ours, theirs = ([score(row["text"]) for row in rows] for rows in (members, strangers))
    return fmean((a > b) + (a == b) / 2 for a, b in product(ours, theirs))


def scores(where: Path, root: Path) -> dict[str, float]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    read = {
        file.relative_to(root).with_suffix("").as_posix(): json.loads(file.read_text()) for file in root.rglob("*.json")
    }
    found = {"forget_verbatim/rougeL_f1_unstemmed": verbatim(model, tokenizer, read["verbmem/forget"])}
    for name in ("forget", "retain"):
        rows, shots = read[f"knowmem/{name}_qa"], read[f"knowmem/{name}_qa_icl"]
        found[f"{name}_knowledge/rougeL_f1_unstemmed"] = knowledge(model, tokenizer, rows, shots)
    return {**found, "mia_min_k": leak_area(model, tokenizer, read["privleak/forget"], read["privleak/holdout"])}


@pytest.mark.parametrize("corpus", ["news", "books"])
def test_its_scores_are_those_of_a_script_of_its_own(corpus, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = ["--config", f"benchmarks/muse/{corpus}", "--data.root", str(folder / "data"), *SHORT]
    assert main(["validate", str(folder / "gold"), *shared, "--output_dir", "gold"]) == 0
    (gold,) = Path("gold").rglob("eval/*.json")
    arguments = ["fit", "--config", "npo", *shared, "--model.model", str(folder / "pocket")]
    arguments += ["--data.retain_reference", str(gold), "--trainer.max_steps", "2", "--optimizer.lr", "3e-4"]
    assert main([*arguments, "--trainer.accumulate_grad_batches", "1", "--output_dir", "npo"]) == 0
    (run,) = (file.parent for file in Path("npo").rglob("config.yaml"))
    rest = 1 - scores(folder / "gold", folder / "data")["mia_min_k"]
    for step, where in ((0, folder / "pocket"), (2, run / "model")):
        summary = json.loads((run / "eval" / f"step={step}.json").read_text())["summary"]
        expected = scores(where, folder / "data")
        assert {name: summary[name] for name in expected} == pytest.approx(expected, rel=1e-6)
        leak = ((1 - expected["mia_min_k"]) - rest) / rest * 100
        assert summary["privleak"] == pytest.approx(leak, rel=1e-6)
        if step == 0:
            assert summary["forget_verbatim/rougeL_f1_unstemmed"] > 0.1  # and so not equal by being nothing
            assert summary["retain_knowledge/rougeL_f1_unstemmed"] > 0.1
            assert summary["privleak"] < 0


def test_folds_are_forgotten_one_after_another(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = str(folder / "pocket")
    shared = ["--config", "grad_diff", "--config", "benchmarks/muse/news", "--data.root", str(folder / "data"), *SHORT]
    shared += ["--data.evaluation", "null", "--trainer.max_steps", "1", "--trainer.num_sanity_val_steps", "0"]
    for fold in (1, 2):
        more = ["--data.forget.name", "sust", "--data.forget.split", f"forget_{fold}", "--model.model", model]
        assert main(["fit", *shared, *more, "--output_dir", f"fold{fold}"]) == 0
        (run,) = (file.parent for file in Path(f"fold{fold}").rglob("config.yaml"))
        found = json.loads((run / "eval" / "step=1.json").read_text())["fingerprint"]
        assert found["sets"]["forget"]["source"]["path"].endswith(f"sust/forget_{fold}.json")
        assert found["sets"]["forget"]["rows"] == 1  # all texts in one
        model = str(run / "model")
