import json
import os
from pathlib import Path

import pytest

from granprune.errors import UserError
from granprune.report.latency import find_bench
from tests.report.tables import write_bench


def test_found_in_folders_at_any_depth_and_beside_tables(tmp_path: Path) -> None:
    write_bench(tmp_path / "study" / "bench", {"run": "a"})
    write_bench(tmp_path / "kept", {"run": "b"})
    places = [str(tmp_path / "study"), str(tmp_path / "kept" / "runs.csv")]
    assert sorted(row["run"] for row in find_bench(places).rows) == ["a", "b"]
    assert find_bench(places[:1]).words == "A processor (AVX2), 2 cores"


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert find_bench([str(tmp_path), str(tmp_path / "runs.csv"), "nowhere"]) is None


def test_what_was_measured_again_counts_once_as_it_was_last(tmp_path: Path) -> None:
    early = write_bench(tmp_path / "b", {"milliseconds": 9.0}, {"batch": 2})
    write_bench(tmp_path / "a", {"milliseconds": 1.0})
    os.utime(early / "bench.json", (0, 0))
    found = find_bench([str(tmp_path), str(tmp_path / "a")])
    assert sorted((row["batch"], row["milliseconds"]) for row in found.rows) == [(1, 1.0), (2, 3.0)]


def test_written_and_read_again(tmp_path: Path) -> None:
    found = find_bench([str(write_bench(tmp_path / "a", {}, {"batch": 128}))])
    (tmp_path / "b").mkdir()
    found.write(tmp_path / "b")
    assert find_bench([str(tmp_path / "b")]) == found


def test_the_fastest_form_of_each_network_in_words(tmp_path: Path) -> None:
    rows = [{"engine": "masked dense", "milliseconds": 5.0}, {}, {"batch": 2, "over_best_dense": None}]
    dense = {"variant": "dense", "engine": "OpenVINO", "milliseconds": 0.1, "accuracy": None}
    name = "Weights 0.5 Magnitude seed 1"
    assert find_bench([str(write_bench(tmp_path, dense, *rows))]).fastest() == [
        [name, "Toy", "1", "1", "sparse engine", "3.000 (2.500 to 4.000)", "1.50"],
        [name, "Toy", "2", "1", "sparse engine", "3.000 (2.500 to 4.000)", "-"],
    ]


def test_latencies_of_several_machines_are_refused(tmp_path: Path) -> None:
    write_bench(tmp_path / "a", {})
    write_bench(tmp_path / "b", {}, processor="Another")
    with pytest.raises(UserError, match="do not compare: A processor .* and Another "):
        find_bench([str(tmp_path)])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"machine": {}, "missing": [], "rows": []}', '{"a": 1}'],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(UserError, match=r"bench.json is not what granprune bench writes"):
        find_bench([str(tmp_path)])


def test_a_row_that_lacks_something_is_refused(tmp_path: Path) -> None:
    path = write_bench(tmp_path, {}) / "bench.json"
    whole = json.loads(path.read_text())
    del whole["rows"][0]["macs"]
    path.write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"a row lacks some of .*macs"):
        find_bench([str(tmp_path)])
