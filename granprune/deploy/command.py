"""`granprune deploy`: a finished run as a network that is really smaller and faster."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from granprune.counting import Counts, count
from granprune.deploy.export import export_dense, export_onnx, export_prune
from granprune.deploy.network import Masked, SparseNetwork, largest_error
from granprune.deploy.options import listed
from granprune.deploy.storage import MANIFEST, TENSORS, deployed, save
from granprune.errors import UserError
from granprune.masking import MaskedModel
from granprune.parser import OneLineParser
from granprune.run.restore import read_result, restore
from granprune.run.tables import density_text, percent

DESCRIPTION = """Write a finished run's network for use: kept weights and a manifest, which
granprune.deploy.load reads back as a function of tensors. It is first checked on test images
against the masked network that was trained."""
TOLERANCE = 1e-4  # of the largest output
CHECKED = 4  # batches of test images

Batches = Iterable[tuple[Tensor, Tensor]]
EXPORTS: dict[str, tuple[str, Callable[[MaskedModel, Tensor, Path], None]]] = {
    "dense": ("dense.safetensors", lambda model, image, path: export_dense(model, path)),
    "prune": ("prune.safetensors", lambda model, image, path: export_prune(model, path)),
    "onnx": ("network.onnx", export_onnx),
}


@dataclass
class DeployOptions:
    """What to deploy.

    Args:
        run: Directory of a finished run.
        out: Folder to write; `network.safetensors` and `manifest.json` in it are replaced.
        export: Also write formats of others: `dense` weights with the masks multiplied in, `prune` for
            torch.nn.utils.prune (`weight_orig` and `weight_mask`), or `onnx` of the network without its
            pruned channels or nodes; several separated by commas.
        data_dir: Folder of the data set, if it is not where the run found it.
    """

    run: str
    out: str
    export: str = ""
    data_dir: str | None = None


def main(words: Sequence[str]) -> int:
    """Run `granprune deploy`.

    Args:
        words: What follows `deploy`.
    """
    parser = OneLineParser(prog="granprune deploy", description=DESCRIPTION)
    parser.add_argument("run", type=str, help="Directory of a finished run.")
    parser.add_class_arguments(DeployOptions, skip={"run"})
    options = parser.parse_args(list(words))
    deploy(DeployOptions(**{field.name: options[field.name] for field in fields(DeployOptions)}))
    return 0


def deploy(options: DeployOptions) -> None:
    """Check a run's network, write it, and say what came of it.

    Raises:
        UserError: The run is not finished, or the deployed network would not give its outputs.
    """
    exports = listed(options.export, "--export", EXPORTS.__getitem__, " or ".join(EXPORTS))
    result = read_result(options.run)
    model, data = restore(options.run, options.data_dir)
    data.prepare_data()
    data.setup("test")
    network = _deployed(model)
    error = checked(network, model, islice(data.test_dataloader(), CHECKED))
    accuracy = accuracy_on(network, data.test_dataloader())
    folder = Path(options.out)
    facts = {"run": result["name"], "form": network.form, "test_accuracy": accuracy, "largest_error": error}
    save(model, folder, **facts)
    for name, write in exports:
        write(model, torch.zeros(1, *data.image_shape), folder / name)
    console = Console(highlight=False, soft_wrap=True)
    counts = count(model, data.image_shape)
    console.print(_table(counts, network.form, folder, [name for name, _ in exports]))
    console.print(f"largest difference from the masked network on test images: {error:.1e} of its outputs")
    console.print(f"test accuracy {percent(accuracy)}, in the run {percent(result['test_accuracy'])}")


def checked(network: Callable[[Tensor], Tensor], model: MaskedModel, batches: Batches) -> float:
    """The largest relative error on some images.

    Raises:
        UserError: It is more than 1e-4, or not a number.
    """
    error = max(largest_error(network, model, images.cpu()) for images, _ in batches)
    if not error <= TOLERANCE:
        raise UserError(
            f"not deployed: outputs differ from the masked network's by {error:.1e} of their size, "
            f"more than {TOLERANCE:g}"
        )
    return error


def accuracy_on(network: Callable[[Tensor], Tensor], batches: Batches) -> float:
    """The share of images whose class the network finds."""
    right = [network(images.cpu()).argmax(1) == labels.cpu() for images, labels in batches]
    return float(torch.cat(right).double().mean())


def _deployed(model: MaskedModel) -> SparseNetwork | Masked:
    """In the engine if it can be built; else one line says why not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network = deployed(model)
    for warning in caught:
        Console(highlight=False, soft_wrap=True).print(f"granprune: {warning.message}")
    return network


def _table(counts: Counts, form: str, folder: Path, exports: Sequence[str]) -> Table:
    table = Table("Form", "File", box=None, padding=(0, 2, 0, 0), title=f"in {folder}", title_justify="left")
    for heading in "Density", "Parameters", "MACs", "Bytes":
        table.add_column(heading, justify="right")
    dense = ["1.0000", f"{counts.parameters:,}", f"{counts.dense_macs:,}"]
    left = [density_text(counts.density), f"{counts.kept_parameters:,}", f"{counts.effective_macs:,}"]
    table.add_row("dense network", "-", *dense, f"{4 * counts.parameters:,}")
    for name, kind in [(TENSORS, form), (MANIFEST, ""), *((name, "exported") for name in exports)]:
        size = f"{(folder / name).stat().st_size:,}"
        table.add_row(kind, name, *(left if kind else ["-"] * 3), size)
    return table
