import shutil
import subprocess
import sys

import pytest

from granprune import native
from granprune.native import LEVELS, CompilerMissing, build, find_compiler, level

SANITIZED = """
import torch
from granprune.granularity import Channels, Kernels, Nodes, Weights
from granprune.masking import MaskedModel
from granprune.models import DBSN, ResNet20
from granprune import batch_norm, convolution, native
from granprune.deploy.network import SparseNetwork, largest_error

native.FLAGS = (*native.FLAGS, "-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
torch.set_num_threads(2)
for instructions in {native.level(), "portable"}:
    for density in 0, 0.2, 1:
        for network, granularity, shape in (
            (ResNet20(width=3), Weights(), (3, 13, 21)),
            (ResNet20(width=5), Kernels(), (3, 32, 32)),
            (ResNet20(width=4), Channels(), (3, 8, 3)),
            (DBSN(widths=(70, 33), in_features=37), Weights(), (37,)),
            (DBSN(widths=(70, 33), in_features=37), Nodes(), (37,)),
        ):
            model = MaskedModel(network, granularity).eval()
            model.set_masks({name: torch.rand(mask.shape) < density for name, mask in model.masks.items()})
            fast = SparseNetwork(model, instructions)
            for images in (1, 5, 140) if len(shape) == 1 else (1, 3):
                assert largest_error(fast, model, torch.randn(images, *shape)) < 1e-4
            del fast
for width in 1, 3, 16, 25:
    network = ResNet20(width=width).to(memory_format=torch.channels_last)
    for bfloat16 in False, True:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(torch.randn(3, 3, 13, 21).to(memory_format=torch.channels_last)).sum().backward()
for width in 2, 5, 16:  # few channels by short vectors, some, those that fill vectors
    network = ResNet20(width=width).to(memory_format=torch.channels_last)
    for bfloat16 in False, True:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            network(torch.randn(3, 3, 32, 32).to(memory_format=torch.channels_last)).sum().backward()
assert batch_norm._library.cache_info().misses == 1 and batch_norm._library() is not None
if native.level() == "AVX512":
    for narrow in False, True:
        assert convolution._library(torch.float32, narrow) is not None
print("clean")
"""


def test_built_once_and_keyed_on_source_and_flags(tmp_path, monkeypatch):
    cache, source = tmp_path / "cache", tmp_path / "engine.cpp"
    monkeypatch.setenv("GRANPRUNE_CACHE", str(cache))
    source.write_text("int one() { return 1; }")
    library = build(source, "portable")
    written = library.stat().st_mtime_ns
    assert build(source, "portable") == library
    assert library.stat().st_mtime_ns == written
    assert [path.name for path in cache.iterdir()] == [library.name]
    assert build(source, "portable", ("-O0",)) != library
    (tmp_path / "numbers.h").write_text("constexpr int two = 2;")
    assert build(source, "portable") not in (library, build(source, "portable", ("-O0",)))
    source.write_text("int one() { return 2; }")
    assert build(source, "portable") != library


def test_level_is_one_of_the_known_ones():
    assert level() in LEVELS


def test_no_compiler_is_one_clear_line(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    with pytest.raises(CompilerMissing, match=r"no C\+\+ compiler: .* install one or set CXX"):
        find_compiler()
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    with pytest.raises(CompilerMissing, match="no-such-compiler"):
        find_compiler()


def test_a_failing_compiler_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("GRANPRUNE_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {")
    with pytest.raises(CompilerMissing, match=r"cannot compile broken\.cpp") as caught:
        build(broken, "portable")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.fixture
def fresh():
    """No source is known to be compiled, or not."""
    native.accelerator.cache_clear()
    yield
    native.accelerator.cache_clear()


def test_a_source_is_done_without_where_the_cache_cannot_be_written(tmp_path, monkeypatch, caplog, fresh):
    source = tmp_path / "one.cpp"
    source.write_text("int one() { return 1; }")
    monkeypatch.setenv("GRANPRUNE_CACHE", str(source / "folder in a file"))
    assert native.accelerator(source) is None and native.accelerator(source) is None
    (message,) = caplog.messages
    assert "folder in a file" in message and "one.cpp is replaced by PyTorch's own operations" in message


def test_a_source_is_done_without_where_the_library_cannot_be_loaded(tmp_path, monkeypatch, caplog, fresh):
    source, library = tmp_path / "one.cpp", tmp_path / "one.so"
    library.write_bytes(b"damaged")
    monkeypatch.setattr(native, "build", lambda *arguments: library)
    assert native.accelerator(source) is None
    (message,) = caplog.messages
    assert str(library) in message and "\n" not in message


@pytest.mark.slow
def test_address_and_undefined_behaviour_sanitizers_are_clean(tmp_path):
    def runtime(name):
        return subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()

    preload = f"{runtime('libasan.so')}:{runtime('libubsan.so')}:{runtime('libstdc++.so.6')}"
    environment = {
        "PATH": "/usr/bin:/bin",
        "CXX": "g++",
        "GRANPRUNE_CACHE": str(tmp_path),
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": (native.__file__.rpartition("/granprune/")[0]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr[-3000:]
