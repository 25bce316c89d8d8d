"""How much of the machine's multiply-add peak a float32 training step reaches."""

import statistics

from benchmarks.machine import TURN, MultiplyAdds, step_operations
from benchmarks.measure import Row, share
from benchmarks.trainer_turns import size, turns_with


def peak_share(quick: bool) -> list[Row]:
    """Operations per second of a run's steps over those of bare multiply-adds, in turns."""
    wanted = size(quick)
    bare = MultiplyAdds(0 if quick else TURN)
    stretches = turns_with(lambda trainer, module: bare, wanted)
    operations = step_operations(wanted.batch)
    pairs = stretches.rates(wanted.stretch * operations / 1e9, bare.operations / 1e9)
    peak = statistics.median(pairs.rival)
    note = (
        f"rival and ceiling: multiply-adds in registers, {bare.threads} threads; a step counts as "
        f"3 x forward = {operations / 1e9:.1f} GFLOP, {operations / 1e6 / peak:.1f} ms at the peak"
    )
    return [share("peak-share", "GFLOP/s", pairs, 0.70, "at least", peak, note)]
