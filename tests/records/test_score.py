"""``unlearun score``: from the command to what it prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from unlearun.__main__ import main
from unlearun.records import Evaluation, Results, Score, mean, summarise


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
    missing = ["gone.Metric", "their_metrics.Gone"]
    evaluation.metrics = ["probability", "their_metrics.Length", "their_metrics.Unfit", *missing]
    evaluation.write(tmp_path / "file.json")
    assert main(["score", str(tmp_path / "file.json"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["forget/length"] == 3.5
    lines = err.strip().split("\n")
    assert [line.split(" is left out")[0] for line in lines] == [
        "unlearun: warning: their_metrics.Unfit",
        *(f"unlearun: warning: {path}" for path in missing),
    ]


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
