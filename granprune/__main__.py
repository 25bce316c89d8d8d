"""The command `granprune`: finds the subcommand, and turns expected failures into one line."""

import os
import sys
from importlib import import_module

from granprune import __version__

USAGE = """\
usage: granprune COMMAND [OPTIONS]

Neural-network pruning at every granularity: weights, kernels, channels and nodes.

commands:
  fit        train, prune and rewind; a run that was cut off goes on
  validate   evaluate a run on its evaluation splits, with its masks
  test       evaluate a run on the test images, with its masks
  study      make all runs of a study, on this machine or on a Ray cluster
  report     tables, figures and a page that compare runs
  deploy     write a finished run's network, really smaller and faster
  bench      time pruned networks beside the best dense engines

  granprune fit --config configs/quickstart.yaml      a first run: offline, CPU, in seconds
  granprune COMMAND --help                            all options of a command
"""
PACKAGES = {"study": "study", "report": "report", "deploy": "deploy", "bench": "deploy.bench"}
COMMANDS = ("fit", "validate", "test", *PACKAGES)


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The words after `granprune`; those of this process if not given.

    Returns:
        0 if all went well, 75 if the run was interrupted and can go on, 2 for wrong input, 1 else.
    """
    words = sys.argv[1:] if args is None else args
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"granprune {__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _fail(f"there is no command {words[0]!r}; there are {', '.join(COMMANDS)}", 2)
    return _run(words)


def _run(words: list[str]) -> int:
    from granprune.errors import UserError

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # classes of the user's own
    try:
        if words[0] in PACKAGES:
            return import_module(f"granprune.{PACKAGES[words[0]]}.command").main(words[1:])
        return _train(words)
    except UserError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or 'no file named'}", 1)
    except KeyboardInterrupt:
        return _fail("stopped at once; the same command goes on from what is saved", 130)


def _train(words: list[str]) -> int:
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from granprune.cli import PruningCLI
    from granprune.distributed import lost_connection
    from granprune.run.preemption import EXIT_INTERRUPTED, Interrupted

    try:
        _quiet_logging()
        PruningCLI(words)
    except Interrupted as interruption:
        if getattr(rank_zero_only, "rank", 0):
            return 0  # Lightning kills rank 0, whose word counts, as soon as another rank fails
        print(f"granprune: {interruption}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MisconfigurationException as error:
        return _fail(str(error), 2)
    except RuntimeError as error:
        if not lost_connection(error):
            raise
        return _fail("another process of this run has ended; the same command goes on from what is saved", 1)
    except SystemExit as exit:
        if isinstance(exit.__context__, KeyboardInterrupt):  # Lightning has taken it
            raise KeyboardInterrupt from exit
        raise
    return 0


def _quiet_logging() -> None:
    import logging
    import warnings

    logging.basicConfig(format="granprune: %(message)s", level=logging.WARNING)
    logging.getLogger("granprune").setLevel(logging.INFO)
    for library in "lightning.pytorch", "lightning.fabric":
        logging.getLogger(library).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def _fail(message: str, code: int) -> int:
    print(f"granprune: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
