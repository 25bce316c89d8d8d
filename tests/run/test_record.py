import json

import pytest

from granprune.run.record import append_row, drop_rows_after, read_rows


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in 7, 14, 20, 21:
        append_row(path, {"step": step, "loss": 1 / 3})
    return path


def steps(path):
    return [row["step"] for row in read_rows(path)]


def test_rows_are_read_as_written(path):
    assert steps(path) == [7, 14, 20, 21]
    assert read_rows(path)[0]["loss"] == 1 / 3
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [7, 14, 20, 21]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none") == []
    drop_rows_after(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("step, left", [(0, []), (14, [7, 14]), (19, [7, 14]), (99, [7, 14, 20, 21])])
def test_rows_after_a_step_are_dropped(path, step, left):
    drop_rows_after(path, step)
    assert steps(path) == left


@pytest.mark.parametrize("length", [1, 10, 20])
def test_a_row_cut_off_in_writing_is_none_and_leaves_no_trace(path, length):
    whole = path.read_text()
    with open(path, "a") as file:
        file.write(json.dumps({"step": 28, "loss": 0.25})[:length])
    assert steps(path) == [7, 14, 20, 21]
    drop_rows_after(path, 99)
    assert path.read_text() == whole


def test_a_failed_write_names_the_file():
    with pytest.raises(OSError, match="No space left on device") as error:
        append_row("/dev/full", {"step": 1})
    assert error.value.filename == "/dev/full"
