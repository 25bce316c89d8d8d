import pytest
import torch

from granprune.deploy.bench import measure
from granprune.deploy.bench.forms import ENGINES, Engine
from granprune.deploy.bench.measure import measure_group


def test_every_form_has_a_turn_in_every_round_and_its_outputs_are_checked(subject, here, few_engines):
    group = measure_group([subject, subject], 3, 1, here, rounds=4, seconds=1e-4)
    assert [(t.variant, t.form) for t in group.timings] == [
        ("dense", "torch eager"),
        ("dense", "sparse engine"),
        *2 * [("pruned", "sparse engine"), ("pruned", "masked dense")],
    ]
    assert all(len(t.seconds) == 4 for t in group.timings)
    assert all(t.error < 1e-4 for t in group.timings)
    assert not group.missing


def test_forms_that_are_wrong_or_absent_are_named_and_not_timed(subject, here, monkeypatch):
    wrong = Engine("torch", lambda network, x, threads: lambda x: 1.01 * network(x))
    absent = Engine("torch", wrong.build, packages=("no_such_package",))
    monkeypatch.setattr(measure, "DENSE", ["torch eager", "wrong", "absent"])
    monkeypatch.setitem(ENGINES, "wrong", wrong)
    monkeypatch.setitem(ENGINES, "absent", absent)
    group = measure_group([subject], 2, 1, here, rounds=1, seconds=1e-4)
    assert [t.form for t in group.timings] == ["torch eager", "sparse engine", "masked dense"]
    assert group.missing[0].startswith("wrong, dense: its outputs are off by 1.0e-02")
    assert group.missing[1].startswith("absent, dense: no_such_package not installed; pip install")


def test_dense_network_of_a_subject_has_its_weights(subject, here, few_engines):
    group = measure_group([subject], 1, 1, here, rounds=1, seconds=1e-4)
    dense = group.timings[0].subject
    assert dense.counts.density == 1
    assert dense.accuracy is None
    assert torch.equal(dense.model.weights()["head"], subject.model.weights()["head"])


def test_turns_start_with_another_form_each_round():
    assert measure._turns(["a", "b", "c"], 4) == list("abcbcacababc")


def test_a_wrong_output_of_nan_is_wrong(subject, here, monkeypatch):
    nan = Engine("torch", lambda network, x, threads: lambda x: torch.nan * network(x))
    monkeypatch.setattr(measure, "DENSE", ["nan"])
    monkeypatch.setitem(ENGINES, "nan", nan)
    group = measure_group([subject], 1, 1, here, rounds=1, seconds=1e-4)
    assert "off by nan" in group.missing[0]
    assert group.timings[0].variant == "pruned"


@pytest.mark.slow
def test_compact_networks_are_timed_too(masked, here, few_engines, monkeypatch):
    from granprune.deploy.bench import forms
    from granprune.deploy.bench.subjects import random_subjects

    monkeypatch.setattr(forms, "COMPACT", ["torch eager"])
    subjects = random_subjects("ResNet20", "Channels", [0.5], 1)
    group = measure_group(subjects, 1, 1, here, rounds=1, seconds=1e-4)
    assert [t.form for t in group.timings if t.variant == "compact"] == ["torch eager"]
