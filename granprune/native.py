"""Compiles C++ sources at first use and keeps the libraries for the next time."""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import platformdirs
import torch
from torch import Tensor, nn

from granprune.errors import UserError

log = logging.getLogger(__name__)

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
LEVELS = {
    "AVX512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma", "-mpopcnt"),
    "AVX2": ("-mavx2", "-mfma", "-mpopcnt"),
    "portable": (),
}
"""Instruction sets, best first, and the compiler flags that allow them."""


class CompilerMissing(UserError):
    """A C++ source cannot be compiled here; what it does is still possible without it, only slower."""


def level() -> str:
    """The best instruction set of this CPU, as torch sees it: a key of `LEVELS`."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "AVX512", "AVX2": "AVX2"}.get(capability, "portable")


@cache
def accelerator(source: Path, extra: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """A compiled source that makes faster what is possible without it, on torch's threads (OpenMP).

    Args:
        source: The file.
        extra: More flags of the compiler.

    Returns:
        None if it cannot be compiled, kept or loaded here; a warning has said so then, once a source.
    """
    try:
        return ctypes.CDLL(str(build(source, level(), ("-fopenmp", *extra))))
    except (CompilerMissing, OSError) as problem:  # OSError: the cache cannot be written, or run from
        log.warning("%s; %s is replaced by PyTorch's own operations, which are slower", problem, source.name)
        return None


def pointers(*tensors: Tensor | None) -> list[int | None]:
    """Where the tensors' numbers are, for arguments of compiled functions."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def watched(module: nn.Module) -> bool:
    """Whether someone listens to the module, so that it has to run itself."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def build(source: Path, instructions: str, extra: tuple[str, ...] = ()) -> Path:
    """The path of a compiled source; compiles it unless the cache has it.

    The key is the source and the headers beside it, the flags and the compiler's version: a change of any of
    them is a new file.
    The cache is `$GRANPRUNE_CACHE`, or the user's cache folder.

    Args:
        source: The file.
        instructions: A key of `LEVELS`.
        extra: More flags of the compiler.

    Raises:
        CompilerMissing: There is no C++ compiler, or it fails.
    """
    compiler = find_compiler()
    flags = [*FLAGS, *LEVELS[instructions], *extra]
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    key = hashlib.sha256("\n".join([*texts, version, *compiler, *flags]).encode()).hexdigest()
    folder = Path(os.environ.get("GRANPRUNE_CACHE") or platformdirs.user_cache_dir("granprune"))
    library = folder / f"{source.stem}-{key[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _compile([*compiler, *flags], source, library)
    return library


def find_compiler() -> list[str]:
    """The command of a C++ compiler: `$CXX`, or g++, clang++ or c++ from the path.

    Raises:
        CompilerMissing: There is none.
    """
    wanted = os.environ.get("CXX", "").split()
    for command in [wanted] if wanted else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            return command
    sought = f"$CXX is {wanted[0]!r}, which is not there" if wanted else "g++, clang++ and c++ are not there"
    raise CompilerMissing(f"no C++ compiler: {sought}; install one or set CXX")


def _compile(command: list[str], source: Path, library: Path) -> None:
    # Written aside and renamed, so that a second process never loads half a file.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        output = Path(folder) / library.name
        done = subprocess.run(
            [*command, str(source), "-o", str(output)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise CompilerMissing(f"{command[0]} cannot compile {source.name}: {reason}")
        output.replace(library)
