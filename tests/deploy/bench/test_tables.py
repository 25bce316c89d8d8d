import io

from rich.console import Console

from granprune.deploy.bench.tables import conclusions, fastest, table


def row(network, variant, engine, milliseconds, over=None, **more):
    base = {
        "architecture": "DBSN()",
        "batch": 1,
        "threads": 2,
        "network": network,
        "run": None,
        "variant": variant,
        "engine": engine,
        "milliseconds": milliseconds,
        "low": 1,
        "high": 2,
        "images_per_second": 1234,
        "gmacs_per_second": 5,
        "best_dense": "OpenVINO",
        "over_best_dense": over,
        "over_eager": 10,
        "over_own_dense": 8,
        "error": 1e-6,
    }
    return {**base, **more}


ROWS = [
    row("dense", "dense", "OpenVINO", 4, 1.0),
    row("dense", "dense", "sparse engine", 8, 0.5),
    row("Weights 0.1", "pruned", "sparse engine", 1, 4.0),
    row("Weights 0.1", "pruned", "masked dense", 9, 0.4),
    row("Nodes 0.1", "pruned", "sparse engine", 2, 2.0),
    row("Nodes 0.1", "compact", "ONNX Runtime", 0.5, 8.0),
]


def test_conclusions_keep_engine_and_sparsity_apart():
    assert conclusions(ROWS) == [
        "best dense float32 engine: OpenVINO",
        "Weights 0.1: sparse engine 4.00x of the best dense, 10.00x of torch eager"
        " = 0.50x by the engine * 8.00x by sparsity",
        "Nodes 0.1: ONNX Runtime (compact) 8.00x of the best dense, 10.00x of torch eager",
    ]


def test_runs_that_look_alike_are_kept_apart():
    rows = [row("Weights 0.1", "pruned", "sparse engine", ms, run=name) for name, ms in (("a", 1), ("b", 2))]
    assert [found["run"] for found in fastest(rows)] == ["a", "b"]


def test_no_rival_is_said():
    assert conclusions([row("Weights 0.1", "pruned", "sparse engine", 1, best_dense=None)]) == [
        "no dense engine to compare with"
    ]


def test_a_line_a_form():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(ROWS))
    lines = console.export_text().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert "batch 1, 2 threads" in lines[0]
    assert "Nodes 0.1 compact" in lines[-1]
