"""Run `granprune` commands in forks of one process that has imported everything, which takes seconds.

    python launcher.py      reads a job a line from standard input, answers each with its exit code

A job is a JSON object: words after `granprune`, folder to start in, environment to add, and the files
that standard output and standard error go to. A fork behaves as the installed command does, but it
leaves without tearing the interpreter down, which would take longer than most jobs.
"""

import atexit
import gc
import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any


def serve() -> None:
    import_module("granprune.cli")
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            become(job)
            os._exit(run())
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(job: dict[str, Any]) -> None:
    """Make this process what the job's command would have been."""
    import torch

    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in (1, job["out"]), (2, job["err"]):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    torch.set_num_threads(1)
    sys.path.pop(0)  # this file's folder
    sys.argv = ["granprune", *job["words"]]


def run() -> int:
    """Run the command to the end of its process."""
    from granprune.__main__ import main

    try:
        code = main()
    except SystemExit as exit:
        code = int(exit.code or 0)
    except BaseException:  # what the interpreter does with an exception that nobody takes
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
