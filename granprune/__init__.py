"""Neural-network pruning at every granularity: weights, kernels, channels and nodes.

Only the version lives here, so that `import granprune` and `granprune --help` stay cheap; the parts
are imported by name: `from granprune.criteria import SNIP`.
"""

__version__ = "0.1.0"
