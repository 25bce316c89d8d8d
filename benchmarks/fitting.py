"""`granprune fit` of ResNet-20 on random images, called from a benchmark."""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

from benchmarks.checkpoint_overhead import CONFIG
from granprune.__main__ import main as granprune
from granprune.errors import UserError


def fit(data: Path, configs: tuple[Path, ...] = (), **options: Any) -> Path:
    """Train as the command line does: quietly, on the CPU, without evaluations before a round's end.

    Args:
        data: Folder of the images; the run is kept in it.
        configs: Files over the one of ResNet-20.
        options: More options and their values, `__` for the dots.

    Returns:
        The run's directory.

    Raises:
        UserError: The command failed; its own message is on standard error.
    """
    root = Path(mkdtemp(prefix="run-", dir=data))
    settings: Mapping[str, Any] = {
        "data__data_dir": data,
        "run__root": root,
        "trainer__accelerator": "cpu",
        "trainer__enable_progress_bar": "false",
        "trainer__val_check_interval": 10**6,
        "wandb__enabled": "false",
        **options,
    }
    words = [f"--config={path}" for path in (CONFIG, *configs)]
    words += [f"--{key.replace('__', '.')}={value}" for key, value in settings.items()]
    # Its tables would end up in ours, its variables in the next run.
    with redirect_stdout(io.StringIO()), patch.dict(os.environ):
        code = granprune(["fit", *words])
    if code:
        raise UserError(f"granprune fit {' '.join(words)} ended with code {code}")
    (directory,) = (path for path in root.iterdir() if path.is_dir())
    return directory
