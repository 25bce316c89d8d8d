"""The compiled engine that runs pruned networks; `engine.cpp` is its source."""

import ctypes
from functools import cache
from pathlib import Path

from granprune.native import build

SOURCE = Path(__file__).with_suffix(".cpp")


@cache
def engine(instructions: str) -> ctypes.CDLL:
    """The engine compiled for one instruction set, from the cache or the compiler.

    Args:
        instructions: A key of `native.LEVELS`.

    Raises:
        CompilerMissing: There is no C++ compiler, or it fails.
    """
    library = ctypes.CDLL(str(build(SOURCE, instructions)))
    integer, pointer = ctypes.c_int64, ctypes.c_void_p
    library.granprune_open.argtypes = [pointer, integer, integer, integer]
    library.granprune_open.restype = pointer
    library.granprune_close.argtypes = [pointer]
    library.granprune_close.restype = None
    library.granprune_run.argtypes = [pointer, pointer, pointer, integer, integer, integer, integer]
    return library
