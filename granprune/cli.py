"""`granprune fit | validate | test`: LightningCLI with a pruning callback and a run directory."""

import difflib
import inspect
import json
import logging
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse.typing import restricted_number_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from granprune.callback import IterativePruning
from granprune.classifier import Classifier
from granprune.data import ImageDataModule
from granprune.dimensionality import dimensionality
from granprune.distributed import check_devices
from granprune.errors import UserError
from granprune.messages import explain
from granprune.parser import with_values
from granprune.run import identity
from granprune.run.checkpoint import Checkpointing, find_checkpoint
from granprune.run.checkpoint_io import SealedCheckpointIO
from granprune.run.directory import RunDirectory, unused
from granprune.run.progress import RunProgress
from granprune.run.record import Recorder, record_dimensionality
from granprune.run.tables import dimensionality_table, summary_table
from granprune.run.tracking import Tracking, wandb_logger
from granprune.scoring import check

log = logging.getLogger(__name__)
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)])
PREFIX = "GRANPRUNE"  # of environment variables
FLAGS = {"--run.fresh", "--model.compile", "--model.shrink", "--wandb.enabled", "--report_dimensionality"}
RUN_VARIABLE = "GRANPRUNE_RUN_DIRECTORY"  # tells the other ranks which directory rank 0 took
TRAINER_DEFAULTS = {
    "check_val_every_n_epoch": None,
    "val_check_interval": 1000,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
CLASSES = (
    "The options of a class are listed by its name: --data.help Digits, --model.network.help DBSN, "
    "--pruning.schedule.help Iterative, --pruning.criterion.help SNIP. Each can be given as "
    "--data.batch_size 64 or in a configuration file; a later file or option overrides an earlier one."
)
DESCRIPTIONS = {
    "fit": {"description": f"Train, prune and rewind; a run that was cut off goes on. {CLASSES}"},
    "validate": {"description": f"Evaluate a run on its evaluation splits, with its masks. {CLASSES}"},
    "test": {"description": f"Evaluate a run on the test images, with its masks. {CLASSES}"},
}
CKPT_HELP = {
    True: "Checkpoint to go on from, or the directory of its run; this run's newest if not given.",
    False: "Checkpoint to evaluate, or the directory of its run; the configured run's newest if not given.",
}


@dataclass
class RunOptions:
    """Where a run is kept.

    Args:
        root: Folder of all runs; each has a directory of its own there, named after what it is.
        fresh: Start anew, beside an earlier run of the same configuration.
    """

    root: str = "runs"
    fresh: bool = False


@dataclass
class WandbOptions:
    """How a run is tracked in Weights & Biases. Without an API key it is tracked offline.

    Args:
        enabled: Whether to track at all; the environment variable WANDB_MODE has its usual say.
        project: The W&B project.
        group: Runs that belong together, e.g. a study; the task if not given.
        tags: Words to filter runs by, besides what the run is.
    """

    enabled: bool = True
    project: str = "granprune"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


class ExplainingParser(LightningArgumentParser):
    """Ends a wrong command with one line, in this project's words."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a class within an option: the outer one knows more
            super().error(message, ex)
        nested = [p for a in self._actions if isinstance(a.choices, dict) for p in a.choices.values()]
        options = [action.dest for parser in [self, *nested] for action in parser._actions]
        raise _own_words(ex) or UserError(explain(message, options)) from ex

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except UserError as error:
            raise UserError(f"{cfg_path}: {error}") from error


class PruningCLI(LightningCLI):
    """Builds network, data, pruning and trainer from configuration files and flags."""

    def __init__(self, args: list[str] | None = None) -> None:
        args = args or ["fit"]
        self.wanted = args[0]
        super().__init__(
            Classifier,
            ImageDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=ExplainingParser,
            parser_kwargs={"default_env": True, "env_prefix": PREFIX, self.wanted: DESCRIPTIONS[self.wanted]},
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=with_values(args, FLAGS),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one that is asked for, since a parser takes its time; its arguments are our own."""
        return {self.wanted: set(inspect.signature(getattr(Trainer, self.wanted)).parameters) - {"self"}}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=Seed,
            default=1,
            help="Seed of initialization, order, augmentation and scoring; the same one repeats a run.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(IterativePruning, "pruning")
        parser.add_lightning_class_args(Checkpointing, "checkpoint")
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(WandbOptions, "wandb")
        # As plain integers: spawned processes do not know the type Seed.
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "pruning.seed", compute_fn=int)
        parser.link_arguments(
            "data.num_classes", "model.network.init_args.num_classes", apply_on="instantiate"
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=CKPT_HELP[subcommand == "fit"])
        if subcommand == "test":
            parser.add_argument(
                "--report_dimensionality",
                type=bool,
                default=False,
                help="Also report the effective dimensionality of each layer on the test images.",
            )
        return parser

    def _parse_ckpt_path(self) -> None:
        """A checkpoint never overrides the command line."""

    def before_instantiate_classes(self) -> None:
        self.settings = self.config[self.subcommand]
        self._refuse_unknown_variables()
        plain = json.loads(json.dumps(self.settings.clone().as_dict(), default=str))
        self.plain = plain
        self.directory = self._directory()
        if self.subcommand == "fit":
            self._refuse_settings()

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise _own_words(error) or UserError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.model.check_shapes(self.datamodule)
        pruning: IterativePruning = self._get(self.config_init, "pruning")
        checkpointing: Checkpointing = self._get(self.config_init, "checkpoint")
        if self.subcommand != "fit":
            return super().instantiate_trainer(logger=False, plugins=[SealedCheckpointIO()], **kwargs)
        self._own_directory()
        checkpointing.directory = self.directory
        options = self._get(self.config_init, "trainer")
        added: list[Callback] = [Recorder(self.directory, pruning, self._about()), Tracking()]
        if options["enable_progress_bar"] is not False:
            added.append(RunProgress())
        return super().instantiate_trainer(
            max_steps=pruning.schedule.total_steps,
            default_root_dir=str(self.directory.path),
            callbacks=[*(options["callbacks"] or []), *added],
            logger=self._logger(options["logger"]),
            plugins=[*_listed(options["plugins"]), SealedCheckpointIO()],
            **kwargs,
        )

    def fit(self, model: Classifier, datamodule: ImageDataModule) -> None:
        """Train, prune and rewind; go on from the last checkpoint if there is one."""
        check_devices(self.trainer, datamodule, self.settings.trainer.sync_batchnorm)
        given = self.settings.ckpt_path
        resume = find_checkpoint(given) if given else self.directory.latest()
        if resume and not given and self.trainer.is_global_zero:
            log.info("going on from %s", resume)
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=resume, weights_only=True)

    def after_fit(self) -> None:
        if not self.trainer.is_global_zero:
            return
        if not self.directory.complete:  # asked of the files, since a spawned trainer does not come back
            steps = self.config_init.fit.pruning.schedule.total_steps
            raise UserError(
                f"training ended before step {steps}: leave its end to the schedule, not to "
                f"trainer.max_time, trainer.limit_train_batches or a callback"
            )
        self.directory.release()
        print_result(self.directory)

    def test(self, model: Classifier, datamodule: ImageDataModule) -> None:
        """Evaluate a finished run on the test images, with its masks."""
        path = self._evaluated_checkpoint()
        self.trainer.test(model, datamodule=datamodule, ckpt_path=str(path), weights_only=True)
        if self.settings.report_dimensionality:
            found = dimensionality(model.network, datamodule.test_dataloader())
            Console().print(dimensionality_table(found))
            record_dimensionality(self.directory, found)

    def validate(self, model: Classifier, datamodule: ImageDataModule) -> None:
        """Evaluate a finished run on the evaluation splits, with its masks."""
        path = self._evaluated_checkpoint()
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=str(path), weights_only=True)

    def _evaluated_checkpoint(self) -> Path:
        path = find_checkpoint(self.settings.ckpt_path or self.directory.path)
        if self.trainer.is_global_zero:
            log.info("evaluating %s", path)
        return path

    def _directory(self) -> RunDirectory:
        name = identity.run_name(self.plain)
        if self.subcommand != "fit":  # a run is evaluated where its own configuration lies
            for config in reversed(self.settings.config or []):
                directory = RunDirectory(Path(config.absolute).parent)
                if directory.path.name.startswith(name) and directory.saved():
                    return directory
        return RunDirectory(Path(self.settings.run.root) / name)

    def _own_directory(self) -> None:
        """Rank 0 takes the directory, if the run makes sense; the others are told which."""
        pruning: IterativePruning = self._get(self.config_init, "pruning")
        network = self.model.network
        check(network, pruning.schedule, pruning.criterion, pruning.scope, pruning.density)
        launcher, _, path = os.environ.get(RUN_VARIABLE, "").partition(" ")
        further = os.environ.get("LOCAL_RANK", "0") != "0" and launcher == str(os.getppid())
        if further:  # a rank that Lightning has started
            _prctl_pr_set_pdeathsig(signal.SIGKILL)  # ends with rank 0, wherever either of them is
            self.directory = RunDirectory(Path(path))
            return
        if self.settings.run.fresh:
            self.directory = RunDirectory(unused(self.directory.path))
        if self.directory.complete:
            print(f"this run is complete: {self.directory.path} (start it anew with --run.fresh)")
            print_result(self.directory)
            raise SystemExit(0)
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            self.directory.acquire()
            parser = self._parser(self.subcommand)
            parser.save(self.settings, self.directory.config, skip_none=False, overwrite=True)
        os.environ[RUN_VARIABLE] = f"{os.getpid()} {self.directory.path}"

    def _refuse_unknown_variables(self) -> None:
        options = [action.dest for action in self._parser(self.subcommand)._actions]
        known = {f"{PREFIX}_{self.subcommand}__{option}".replace(".", "__").upper() for option in options}
        heads = {self.subcommand, *(option.split(".")[0] for option in options)}
        for name in os.environ.keys() - known:
            first, *rest = name.removeprefix(f"{PREFIX}_").lower().split("__")
            if name.startswith(f"{PREFIX}_") and rest and first in heads:
                close = difflib.get_close_matches(name, known, 1, cutoff=0)
                raise UserError(f"there is no option for the variable {name}; did you mean {close[0]}?")

    def _refuse_settings(self) -> None:
        accumulate = self.settings.trainer.accumulate_grad_batches
        if accumulate < 1:
            raise UserError(f"trainer.accumulate_grad_batches is {accumulate}: expected an integer >0")
        for key in "max_steps", "max_epochs", "min_epochs", "min_steps", "fast_dev_run":
            if self.settings.trainer[key] not in (-1, False, None):
                raise UserError(
                    f"trainer.{key} is {self.settings.trainer[key]}, but the schedule sets the length of a "
                    f"run: use pruning.schedule.steps (optimizer steps of one round)"
                )

    def _about(self) -> dict[str, Any]:
        return {
            "name": self.directory.path.name,
            "fingerprint": identity.fingerprint(self.plain),
            **identity.describe(self.plain),
        }

    def _logger(self, given: Any) -> Any:
        options = self.settings.wandb
        if given is not None or not options.enabled:
            return given or False
        about = identity.describe(self.plain)
        logger = wandb_logger(
            name=self.directory.path.name,
            run_id=self.directory.path.name.rsplit("-s", 1)[-1],
            save_dir=self.directory.path,
            project=options.project,
            group=options.group or about["task"],
            tags=[*options.tags, about["granularity"], about["criterion"], about["scope"], about["schedule"]],
        )
        logger.log_hyperparams({**about, "config": self.plain})
        return logger


def print_result(directory: RunDirectory) -> None:
    """Print a finished run's rounds and where its files are."""
    result = json.loads(directory.result.read_text())
    console = Console()
    console.print(summary_table(result["rounds"]))
    line = f"test accuracy {100 * result['test_accuracy']:.2f} %, everything is in {directory.path}"
    console.print(line, soft_wrap=True)


def _own_words(error: BaseException | None) -> UserError | None:
    """The error of ours that a library wrapped, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
