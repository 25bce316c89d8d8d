"""Where criteria prune: each layer's density in ResNet-20 at initialization, side by side.

    python -m benchmarks.layer_densities --data_dir data --density 0.1 --dead_at 0.01

Prints a markdown table of densities at `--density`, all criteria ranking weights globally, and which
layers each criterion empties at `--dead_at`. CIFAR-10 is scored with; SynFlow and magnitude need none.
"""

import argparse
from collections.abc import Sequence

import torch

from granprune.criteria import SNIP, Criterion, GraSP, Magnitude, SynFlow
from granprune.data import CIFAR10
from granprune.granularity import Weights
from granprune.masking import MaskedModel, Masks, evaluating
from granprune.models import ResNet20
from granprune.pruning import prune

CRITERIA: dict[str, Criterion] = {
    "Magnitude": Magnitude(),
    "SNIP": SNIP("batch"),
    "GraSP": GraSP(),
    "SynFlow": SynFlow(),
}


def pruned(criterion: Criterion, density: float, data: CIFAR10, seed: int) -> Masks:
    """The masks of a fresh network after one pruning with all the criterion's passes."""
    torch.manual_seed(seed)
    model = MaskedModel(ResNet20(), Weights())
    for count in range(1, criterion.passes + 1):
        with evaluating(model):
            scores = criterion(model, data.scoring_batches(1), torch.Generator())
        share = count / criterion.passes
        model.set_masks(prune(model.masks, scores, [(list(model.masks), density**share)]))
    return model.masks


def table(columns: dict[str, Masks]) -> str:
    """A markdown table of densities in percent, a row a layer."""
    names = list(next(iter(columns.values())))
    lines = [f"| layer | weights | {' | '.join(columns)} |", "| --- | ---: |" + " ---: |" * len(columns)]
    for name in names:
        weights = next(iter(columns.values()))[name].numel()
        shares = [f"{100 * float(masks[name].double().mean()):.2f} %" for masks in columns.values()]
        lines.append(f"| {name} | {weights:,} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table and the dead layers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data", help="folder of cifar10.safetensors")
    parser.add_argument("--density", type=float, default=0.1, help="fraction of weights kept in the table")
    parser.add_argument(
        "--dead_at", type=float, default=0.01, help="fraction at which dead layers are listed"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the initialization and the images")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    data = CIFAR10(data_dir=options.data_dir, seed=options.seed)
    data.prepare_data()
    data.setup()
    print(f"Densities at {options.density:g} overall, seed {options.seed}\n")
    at_density = {n: pruned(c, options.density, data, options.seed) for n, c in CRITERIA.items()}
    print(table(at_density))
    print(f"\nLayers without a weight at {options.dead_at:g}\n")
    for name, criterion in CRITERIA.items():
        masks = pruned(criterion, options.dead_at, data, options.seed)
        dead = [layer for layer, mask in masks.items() if not mask.any()]
        least = min(masks, key=lambda layer: int(masks[layer].sum()))
        print(f"- {name}: {', '.join(dead) or 'none'}; fewest are {int(masks[least].sum())} in {least}")


if __name__ == "__main__":
    main()
