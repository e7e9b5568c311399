"""``unlearun score``: from the command to what it prints."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from unlearun.__main__ import main
from unlearun.errors import UnlearunError
from unlearun.records import Evaluation, Results, Score, mean, summarise
from unlearun.records.score import main as score


class Length:
    """A metric of somebody's own, as far as scoring needs it."""

    score = Score("length", ("length",), mean)


class Unfit:
    score = 3


@pytest.fixture
def evaluation() -> Evaluation:
    examples = {
        name: {
            str(i): {"probability": i / 9 + 0.1, "truth_ratio": 0.3 + i, "mia_min_k": i * sign, "length": i}
            for i in range(8)
        }
        for name, sign in (("forget", 1.0), ("retain", 1.0), ("holdout", -1.0))
    }
    return Evaluation(5, examples=examples, fingerprint={"model": "some/model", "method": "NPO"})


@pytest.fixture
def file(tmp_path, evaluation):
    evaluation.write(tmp_path / "run" / "eval" / "step=5.json")
    return tmp_path / "run" / "eval" / "step=5.json"


def test_json_is_one_object_with_the_values_of_the_evaluation(evaluation, file, capsys):
    assert main(["score", str(file), "--retain", str(file), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    summarise(evaluation, Evaluation.read(file))
    assert printed == evaluation.summary
    assert printed["ks_forget_quality"] == 1.0
    assert {"model_utility", "forget/probability", "retain/probability", "privleak", "mia_min_k"} <= set(printed)


def test_json_has_null_for_what_is_not_finite(tmp_path, capsys):
    rows = {"0": {"probability": None, "logprob": -9000.0, "tokens": 1}}
    Evaluation(0, examples={"forget": rows}).write(tmp_path / "file.json")
    main(["score", str(tmp_path / "file.json"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["forget/probability"] is None
    assert printed["forget/perplexity"] is None


def test_the_table_says_what_the_records_are(evaluation, file, capsys):
    assert main(["score", str(file.parent.parent)]) == 0
    printed = capsys.readouterr().out
    summarise(evaluation)
    first, second, _, table = printed.split("\n", 3)
    assert first == "evaluation at step 5, model some/model, method NPO"
    assert second == "rows: forget 8, retain 8, holdout 8"
    assert table.strip("\n") == str(Results.of(evaluation))
    assert "95% interval" in printed


def test_intervals_can_be_left_out(file, capsys):
    main(["score", str(file), "--no-intervals"])
    assert "95% interval" not in capsys.readouterr().out


def test_a_published_file(tmp_path, capsys):
    (tmp_path / "log.json").write_text(json.dumps({"eval_log.json": {"avg_gt_loss": {"0": 0.0}}}))
    main(["score", str(tmp_path / "log.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("TOFU's eval_log_aggregated.json\nrows: retain 1\n")
    assert "model_utility: harmonic mean of retain/probability" in printed


def test_metrics_of_the_users_own_are_imported_and_missed_ones_named(tmp_path, evaluation, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "their_metrics", sys.modules[__name__])
    missing = ["gone.Metric", "their_metrics.Gone", "..x.y", ".x", "x.", "their_metrics..Length", "."]
    evaluation.metrics = ["probability", "their_metrics.Length", "their_metrics.Unfit", *missing]
    evaluation.write(tmp_path / "file.json")
    assert main(["score", str(tmp_path / "file.json"), "--json", "--import-metrics"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["forget/length"] == 3.5
    lines = err.strip().split("\n")
    assert [line.split(" is left out")[0] for line in lines] == [
        "unlearun: warning: their_metrics.Unfit",
        *(f"unlearun: warning: {path}" for path in missing),
    ]


def test_a_module_that_raises_is_named(tmp_path, evaluation, capsys, monkeypatch):
    (tmp_path / "broken_metrics.py").write_text("raise KeyError('torn')")
    monkeypatch.syspath_prepend(tmp_path)
    evaluation.metrics = ["probability", "broken_metrics.Length"]
    evaluation.write(tmp_path / "file.json")
    assert main(["score", str(tmp_path / "file.json"), "--json", "--import-metrics"]) == 0
    assert "broken_metrics.Length is left out, it cannot be imported: 'torn'" in capsys.readouterr().err


def test_a_metric_in_the_current_folder_is_found(tmp_path, evaluation, capsys, monkeypatch):
    """An installed command does not look there by itself."""
    (tmp_path / "metrics_here.py").write_text(
        "from unlearun.records import Score, mean\n\n\nclass Length:\n    score = Score('n', ('tokens',), mean)\n"
    )
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    evaluation.metrics = ["probability", "metrics_here.Length"]
    evaluation.write(tmp_path / "file.json")
    assert main(["score", "file.json", "--json", "--import-metrics"]) == 0
    assert "left out" not in capsys.readouterr().err


def test_records_run_no_code_unless_the_user_says_so(tmp_path, evaluation, capsys, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "hostile_metrics.py").write_text(f"open({str(ran)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    evaluation.metrics = ["probability", "hostile_metrics.Length", "os.system", "hostile_metrics.Length"]
    evaluation.write(tmp_path / "file.json")
    assert main(["score", str(tmp_path / "file.json"), "--retain", str(tmp_path / "file.json"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == (
        "unlearun: warning: metrics that these records name are left out, for importing them runs their code: "
        "'hostile_metrics.Length', 'os.system' (if you trust it, add --import-metrics)\n"
    )
    assert not ran.exists()
    assert "hostile_metrics" not in sys.modules
    assert "forget/probability" in json.loads(out)
    main(["score", str(tmp_path / "file.json"), "--json", "--import-metrics"])
    assert ran.exists()


def test_many_or_odd_names_stay_one_line(tmp_path, evaluation, capsys):
    evaluation.metrics = ["evil.\x1b[2J\n", *(f"m.a{i}" for i in range(11))]
    evaluation.write(tmp_path / "file.json")
    main(["score", str(tmp_path / "file.json"), "--json"])
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1
    assert "\x1b" not in warned
    assert "'m.a8' and 2 more (if you trust it" in warned


def test_the_evaluations_own_reference_that_fits_no_more_is_a_warning(tmp_path, evaluation, file, capsys):
    evaluation.fingerprint.update(retain_reference=str(file), sets={"forget": {"rows": 8, "partial": True}})
    evaluation.write(tmp_path / "file.json")
    assert main(["score", str(tmp_path / "file.json"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "what is relative to a retain model is left out" in err
    assert "this evaluation was cut short after 8 forget rows" in err
    assert "forget/probability" in json.loads(out)
    assert "ks_forget_quality" not in json.loads(out)
    assert main(["score", str(tmp_path / "file.json"), "--retain", str(file)]) == 2


def test_half_a_surrogate_pair_is_printed(tmp_path, capsys):
    rows = {"0": {"probability": 0.5}}
    stored = {"step": 0, "summary": {}, "examples": {"\ud800": rows}, "fingerprint": {"model": "\udfff"}}
    (tmp_path / "file.json").write_text(json.dumps(stored))
    assert main(["score", str(tmp_path / "file.json")]) == 0
    assert "evaluation at step 0, model ?\nrows: ? 1" in capsys.readouterr().out


def test_mistakes_are_one_message(tmp_path, file, capsys):
    assert main(["score", str(tmp_path / "missing.json")]) == 2
    assert "missing.json cannot be read: No such file" in capsys.readouterr().err
    other = Evaluation(0, examples={"forget": {"0": {"truth_ratio": 1.0}}})
    other.write(tmp_path / "other.json")
    assert main(["score", str(file), "--retain", str(tmp_path / "other.json")]) == 2
    assert "the reference has 1 forget rows, this evaluation 8" in capsys.readouterr().err
    Evaluation(0).write(tmp_path / "empty.json")
    assert main(["score", str(tmp_path / "empty.json")]) == 2
    assert "holds no value that a metric is made of" in capsys.readouterr().err


def test_it_is_listed_and_explained(capsys):
    main([])
    assert "score     compute every aggregate from records, without a model" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["score", "--help"])
    assert stopped.value.code == 0
    assert "--retain REFERENCE" in capsys.readouterr().out


def test_it_loads_no_torch(file):
    code = (
        "import sys; from unlearun.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(status or bool({'torch', 'lightning', 'transformers', 'torchmetrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "score", str(file), "--json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


ODD: list[Any] = [
    *(None, True, 0, -1, -1000, 10**400, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 10**30),
    *("", "text", "..x.y", "0.5", "\ud800", "\0", [], [None], [[1]], [1, "a"], {}, {"0": None}, {"a": {"b": {}}}),
]
NAMES = (
    *("forget", "holdout", "retain_b", "real_authors", "mia_min_k", "mia", "truth_ratio", "logprob", "tokens", "rows"),
    *("sets", "metrics", "given", "kind", "template", "value_by_index", "agg_value", "avg_loss", "digest", "answer"),
    *("ks_forget_quality_log10", "retain/rouge", "forget/exact_memorization", "partial", "gt_loss", "num_token_gt"),
)


def small_files() -> dict[str, dict[str, Any]]:
    record = {"probability": 0.5, "truth_ratio": 1.5, "mia_min_k": -1.0, "logprob": -3.0, "tokens": 2, "answer": "a"}
    names = ("forget", "holdout", "retain")
    ours = {
        "step": 3,
        "summary": {"forget/probability": 0.5},
        "examples": {name: {str(i): {**record, "mia_min_k": -i} for i in range(3)} for name in names},
        "fingerprint": {
            "kind": "ours",
            "model": "m",
            "sets": {name: {"role": name, "rows": 3, "digest": "ab"} for name in names},
            "template": {"prompt": "{question}", "system": None},
            "tokenizer": "ab",
            "retain_reference": "pocket/gold_records.json",
        },
        "intervals": {"forget/probability": [0.0, 1.0]},
        "parts": {"model_utility": ["retain/probability"]},
        "metrics": [],
        "given": {"mia_min_k": 1},
    }
    losses = {"avg_gt_loss": {"0": 1.0, "1": 2.0}, "avg_paraphrased_loss": {"0": 1.0, "1": 1.5}}
    texts = {"generated_text": {"0": ["q", "g", "a"]}}
    wrong = {"average_perturb_loss": {"0": [1.0, 2.0], "1": [0.5, 1.0]}, "rougeL_recall": {"0": 0.5, "1": 1.0}}
    counts = {"gt_loss": {"0": 3.0, "1": 4.0}, "num_token_gt": {"0": 3, "1": 2}}
    logs = ("eval_log_forget.json", "eval_log.json", "eval_real_author_wo_options.json")
    metrics = {
        "forget_Q_A_Prob": "avg_loss",
        "forget_Q_A_PARA_Prob": "avg_loss",
        "forget_Q_A_PERT_Prob": "avg_loss",
        "forget_truth_ratio": "score",
        "retain_Q_A_ROUGE": "rougeL_recall",
        "exact_memorization": "score",
    }
    by_index = {name: {"value_by_index": {"0": {key: 0.5}, "1": {key: 1.0}}} for name, key in metrics.items()}
    return {
        "ours": ours,
        "tofu": {name: {**losses, **texts, **wrong, **counts} for name in logs},
        "open-unlearning": {**by_index, "mia_min_k": {"auc": 0.5, "agg_value": 0.5}},
    }


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every key in it."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


def mutated(stored: dict[str, Any], draw: random.Random) -> str:
    """Put odd values, names and gaps into a file, and sometimes cut its text."""
    stored = copy.deepcopy(stored)
    for _ in range(draw.choice([0, 1, 1, 2, 4])):
        found = list(places(stored))
        if not found:
            break
        within, key = draw.choice(found)
        change = draw.random()
        if change < 0.6:
            within[key] = copy.deepcopy(draw.choice(ODD))
        elif change < 0.75:
            del within[key]
        elif change < 0.9 and isinstance(within, dict):
            within[draw.choice(NAMES)] = within.pop(key)
        else:
            for _ in range(draw.choice([2, 90, 150])):
                within[key] = [within[key]]
    text = json.dumps(stored)
    if draw.random() < 0.1:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(["", "[" * 9000, '"', "9" * 5000, "\0"]) + text[at + draw.randrange(9) :]
    return text


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", list(small_files()))
def test_whatever_a_file_holds_nothing_but_our_error_comes_out(tmp_path, capsys, kind):
    draw = random.Random(kind)
    scored = 0
    for _ in range(150):
        names = []
        for name, stored in (("records", small_files()[kind]), ("retain", small_files()[draw.choice(["ours", kind])])):
            names.append(tmp_path / f"{name}.json")
            names[-1].write_text(mutated(stored, draw))
        arguments = [str(names[0]), *draw.choice([[], ["--retain", str(names[1])]])]
        with contextlib.suppress(UnlearunError):
            score([*arguments, *draw.choice([["--json"], ["--no-intervals"]])])
            scored += 1
    assert 10 < scored < 150  # some are whole enough, some are not
