import csv
import json

import pytest

from granprune.deploy.bench import results
from granprune.deploy.bench.forms import BFLOAT16, OWN
from granprune.deploy.bench.measure import Group, Timing
from granprune.deploy.bench.subjects import unpruned


@pytest.fixture
def group(subject):
    """Rounds by hand: OpenVINO is the best float32 rival, bfloat16 and our own engine are none."""
    dense = unpruned(subject)
    seconds = {
        "torch eager": [8, 9, 10],
        "OpenVINO": [4, 6, 5],
        BFLOAT16: [1, 1, 1],
        OWN: [2, 2, 3],
    }
    timings = [Timing(dense, "dense", form, form, 0, times) for form, times in seconds.items()]
    return Group(4, 1, [*timings, Timing(subject, "pruned", OWN, "x", 1e-6, [1, 2, 1])])


def test_ratios_are_medians_over_paired_rounds(group):
    row = results.rows(group)[-1]
    assert row["best_dense"] == "OpenVINO"
    assert row["over_best_dense"] == 4  # of 4, 3, 5
    assert row["over_eager"] == 8  # of 8, 4.5, 10
    assert row["over_own_dense"] == 2  # of 2, 1, 3
    assert (row["milliseconds"], row["low"], row["high"]) == (1000, 1000, 1500)
    assert row["images_per_second"] == 4


def test_rows_say_what_they_are_about(group, subject):
    dense, *_, pruned = results.rows(group)
    assert (dense["network"], dense["density"], dense["accuracy"]) == ("dense", 1, None)
    assert dense["macs"] == dense["dense_macs"] == 16 * 20 + 20 * 12 + 12 * 10
    assert pruned["macs"] == subject.counts.effective_macs < dense["macs"]
    assert pruned["gmacs_per_second"] == pytest.approx(4 * pruned["macs"] / 1e9)
    assert (pruned["granularity"], pruned["accuracy"], pruned["precision"]) == ("Weights", 0.5, "float32")
    assert [row["precision"] for row in results.rows(group)].count("bfloat16") == 1


def test_without_rivals_there_are_no_ratios(group):
    group.timings = group.timings[-1:]
    (row,) = results.rows(group)
    assert row["over_best_dense"] is row["over_eager"] is row["best_dense"] is None


def test_files_hold_the_rows(group, tmp_path):
    rows = results.rows(group)
    results.write_csv(rows, tmp_path / "bench.csv")
    results.write_json(rows, ["OpenVINO: absent"], results.machine(), tmp_path / "bench.json")
    with open(tmp_path / "bench.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["engine"] for row in table] == [row["engine"] for row in rows]
    assert "seconds" not in table[0]
    whole = json.loads((tmp_path / "bench.json").read_text())
    assert whole["rows"] == rows
    assert whole["missing"] == ["OpenVINO: absent"]
    assert whole["machine"]["cores"] >= 1
