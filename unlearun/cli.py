"""LightningCLI for the Trainer's commands, with names resolved and mistakes explained."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, ReduceLROnPlateau

from unlearun import runs
from unlearun.data import UnlearningDataModule, preview
from unlearun.errors import UnlearunError
from unlearun.explain import explain
from unlearun.files import write_whole
from unlearun.methods import METHODS, OPTIMIZER, UnlearningMethod
from unlearun.models.export import read_checkpoint
from unlearun.models.loading import locate
from unlearun.own_code import look_here
from unlearun.shipped import check_config, configs_root, find_config
from unlearun.terminal import say

EPILOG = (
    f"Methods: {', '.join(method.__name__ for method in METHODS)}. "
    "All options of one, explained: unlearun fit --model NAME --help"
)
log = logging.getLogger(__name__)
RESUME = "A run folder that goes on from its last checkpoint, with its own config."
KEPT_NAMES = ("last", "best", "hpc")  # of checkpoints that Lightning finds itself
TARGET = "Before the options may stand what to measure: a run folder, a checkpoint, a model folder or a hub id. "


class UnlearunParser(LightningArgumentParser):
    """A parser that, when a key or class is misspelt, says which one may be meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong, and what may be meant.

        Args:
            message: What jsonargparse found.
            ex: What it was raised from.

        Raises:
            UnlearunError: Always.
        """
        if not self.exit_on_error:  # one of jsonargparse's trials on the way
            super().error(message, ex)
        raise UnlearunError(explain(message)) from ex

    def instantiate(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401 - a jsonargparse Namespace
        """Make what a config names.

        Args:
            arguments: See jsonargparse.
            settings: See jsonargparse.

        Raises:
            UnlearunError: A class refuses an argument; jsonargparse would wrap that into a complaint of its own.
        """
        try:
            return super().instantiate(*arguments, **settings)
        except ValueError as error:
            inner: BaseException | None = error
            while inner is not None and not isinstance(inner, UnlearunError):
                inner = inner.__cause__ or inner.__context__
            raise error if inner is None else inner from None


class _Finished(Exception):  # noqa: N818 - no error
    """The run that is to go on has ended."""


class UnlearunCLI(LightningCLI):
    """LightningCLI that makes run folders, and leaves loading the model to the Trainer."""

    def __init__(self, arguments: list[str], run: bool = True) -> None:
        self.existing: Path | None = None
        self.began_with: str | None = None  # the checkpoint of another run, from which that began
        commands = {name: {"epilog": EPILOG if name == "fit" else TARGET + EPILOG} for name in self.subcommands()}
        epilogs = commands if run else {"epilog": EPILOG}
        super().__init__(
            UnlearningMethod,
            UnlearningDataModule,
            trainer_defaults=runs.TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=UnlearunParser,
            parser_kwargs={"allow_abbrev": False, **epilogs},
            subclass_mode_model=True,
            save_config_callback=None,  # the recorder writes it, into the run folder
            args=arguments,
            run=run,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the place of outputs, what goes on, what stops a run, and the default optimizer."""
        parser.add_argument("--output_dir", type=str, default=runs.OUTPUT_DIR, help="The folder of all runs.")
        parser.add_argument("--resume", type=str | None, default=None, help=RESUME)
        parser.add_class_arguments(runs.DivergenceGuard, "guard")
        # Not "automatic": Lightning would build the optimizer now, and the model is loaded only later.
        parser.add_optimizer_args((torch.optim.Optimizer,))
        parser.set_defaults({"optimizer": OPTIMIZER})
        parser.add_lr_scheduler_args((torch.optim.lr_scheduler.LRScheduler, ReduceLROnPlateau))

    def before_instantiate_classes(self) -> None:
        """Find the run that is to go on, if any, and its last checkpoint.

        Raises:
            UnlearunError: There is none.
        """
        config = self.config.get(str(self.subcommand), self.config)
        resume, last = config.resume, config.get("ckpt_path") == "last"
        if resume is None and not last:
            return
        if self.subcommand != "fit" and resume is not None:
            raise UnlearunError(f"--resume is for fit; to {self.subcommand} a run, name it: {self.subcommand} {resume}")
        if resume is not None and config.ckpt_path is not None:
            raise UnlearunError("--resume takes the run's last checkpoint; leave --ckpt_path out")
        given = yaml.safe_load(self._dump())
        method = str(config.model.class_path).rpartition(".")[2].lower()
        folder = runs.find_run(Path(config.output_dir) / method, given) if last else runs.check_run(resume)
        checkpoint = runs.newest_checkpoint(folder)
        if self.subcommand != "fit":
            if checkpoint is None:
                raise UnlearunError(f"{folder} has no checkpoint")
            config.ckpt_path = str(checkpoint)
            return
        stored = runs.read_config(folder) or {}
        self.existing, self.began_with = folder, stored.get("ckpt_path")
        if checkpoint is None and self.began_with is not None:
            read_checkpoint(self.began_with)
        config.ckpt_path = self.began_with if checkpoint is None else str(checkpoint)
        differ = runs.differences(stored, given)
        if runs.is_finished(folder):
            further = f"start from its model (--model.model {folder / 'model'}) or, with --ckpt_path, its checkpoint"
            if differ:
                raise UnlearunError(f"{folder} is finished; to train further, {further}")
            raise _Finished(f"{folder} is finished, there is nothing left to do; to train further, {further}")
        if differ:
            log.info("%s goes on otherwise than it began: %s", folder, ", ".join(differ))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401 - see Lightning
        """Parse, and check what Lightning would fail at before the classes are made.

        Args:
            parser: See Lightning.
            args: The command line.

        Raises:
            UnlearunError: The seed cannot be one, or there is no such checkpoint.
        """
        super().parse_arguments(parser, args)
        config = self.config.get(str(self.config.get("subcommand")), self.config)
        runs.check_seed(config.get("seed_everything"))
        checkpoint = config.get("ckpt_path")
        if checkpoint is not None and checkpoint not in KEPT_NAMES and not Path(checkpoint).is_dir():
            read_checkpoint(checkpoint)

    def after_instantiate_classes(self) -> None:
        """Hand on what the classes cannot be made with: optimizer and scheduler, as configured, and the run's seed."""
        seed = self._get(self.config, "seed_everything")
        self.datamodule.run_seed = int(seed or 0)
        self.model.optimizer = _as_dict(self._get(self.config, "optimizer")) or OPTIMIZER
        self.model.lr_scheduler = _as_dict(self._get(self.config, "lr_scheduler"))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, with a run folder, and TensorBoard unless the user brings another logger."""
        config = self._get(self.config_init, "trainer")
        root = self._get(self.config_init, "output_dir")
        given = {**config, "callbacks": [*_as_list(config.get("callbacks")), self._get(self.config_init, "guard")]}
        run = runs.run_arguments(given, root, self.model, self._write_config, self.existing)
        with runs.making_trainer():
            return super().instantiate_trainer(**run, **kwargs)

    def _write_config(self, folder: Path) -> None:
        write_whole(folder / "config.yaml", self._dump())

    def _dump(self) -> str:
        """Return all arguments; of a run that goes on in its own folder, with what it began from."""
        config = self.config.get(str(self.subcommand), self.config).clone()
        if self.existing is not None:
            config.resume, config.ckpt_path = None, self.began_with
        return str(self._parser(self.subcommand).dump(config, skip_none=False))

    def after_fit(self) -> None:
        """Print what has changed."""
        runs.finish(self.trainer, self.model, self.datamodule)

    def after_validate(self) -> None:
        """Print what was measured."""
        runs.show_evaluation(self.trainer, self.model)

    def after_test(self) -> None:
        """Print what was measured."""
        runs.show_evaluation(self.trainer, self.model)

    def after_predict(self) -> None:
        """Say where the answers are."""
        runs.show(self.trainer, "answers written to predictions/")


def run(command: str, arguments: list[str]) -> None:
    """Run one of the Trainer's commands, or show what the data look like.

    Args:
        command: fit, validate, test, predict or preview.
        arguments: What follows it.

    Raises:
        UnlearunError: An argument, a file or the data are wrong.
    """
    runs.quiet()
    if command == "fit":
        arguments = own_config(arguments)
    look_here()  # for methods and metrics
    arguments = resolve_configs(arguments if command in ("fit", "preview") else name_model(arguments))
    if command == "preview":
        arguments = [*arguments] if arguments else ["--help"]
        cli = UnlearunCLI(arguments, run=False)
        cli.datamodule.connect(cli.model.tokenizer, cli.model.trained_sets, cli.model.alternate)
        say(preview(cli.datamodule))
        return
    if command in ("validate", "test") and not any(argument.startswith("--verbose") for argument in arguments):
        arguments = [*arguments, "--verbose", "false"]  # our table says more than Lightning's
    try:
        with runs.interruptible(), runs.running_trainer():
            UnlearunCLI([command, *method_help(arguments)])
    except _Finished as end:
        say(str(end))


def name_model(arguments: list[str]) -> list[str]:
    """Turn what stands first after validate, test or predict, if it is no option, into options.

    Args:
        arguments: The command line: maybe a run folder, a checkpoint, or the name of a model, then options.

    Returns:
        Options alone. A run folder and a checkpoint bring the config of their run along; a model without a config needs
        no method, for none is run.
    """
    given, options = (
        (arguments[:1], arguments[1:]) if arguments and not arguments[0].startswith("-") else ([], arguments)
    )
    flags = [option.partition("=")[0] for option in options]
    for name in given:
        path = Path(name)
        if (path / "config.yaml").is_file() and (path / "model").is_dir():
            # Those of the run belong to the run, and what it began from is no longer what it is.
            own = ["--trainer.callbacks", "null", "--trainer.logger", "null", "--ckpt_path", "null"]
            return ["--config", str(path / "config.yaml"), *own, *options, "--model.model", str(path / "model")]
        run_config = path.parent.parent / "config.yaml"
        if path.suffix == ".ckpt" and path.is_file() and run_config.is_file():
            return ["--config", str(run_config), *options, "--ckpt_path", name]
        locate(name)  # says what is wrong with it, if anything
        options = [*options, "--model.model", name]
    if not {"--model", "--config", "-c", "-h", "--help"} & set(flags) and flags:
        options = ["--model", f"{UnlearningMethod.__module__}.{UnlearningMethod.__name__}", *options]
    return options


def own_config(arguments: list[str]) -> list[str]:
    """Put the config of a run that is to go on before what else is given.

    Args:
        arguments: The command line.
    """
    for at, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--resume" and (equals or at + 1 < len(arguments)):
            folder = runs.check_run(value if equals else arguments[at + 1])
            # What it began from, if that is another run's checkpoint, is not what it goes on from.
            return ["--config", str(folder / "config.yaml"), "--ckpt_path", "null", *arguments]
    return arguments


def resolve_configs(arguments: list[str]) -> list[str]:
    """Replace what follows ``--config`` by the file it names, local or shipped.

    Args:
        arguments: The command line.

    Returns:
        The same with paths that exist.
    """
    resolved = []
    expects = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if expects:
            argument = str(_sound_config(argument))
        elif equals and flag in ("--config", "-c"):
            argument = f"{flag}={_sound_config(value)}"
        expects = argument in ("--config", "-c")
        resolved.append(argument)
    return resolved


def _sound_config(name: str) -> Path:
    file = find_config(name)
    check_config(file)
    if file.parent == configs_root() / "attacks":
        raise UnlearunError(f"{name} is an attack on a run that has ended: unlearun attack RUN --attacks {file.stem}")
    return file


def method_help(arguments: list[str]) -> list[str]:
    """Turn ``--model RMU --help`` into jsonargparse's way to ask for the options of a class.

    Args:
        arguments: The command line.

    Returns:
        The same, or ``["--model.help", "RMU"]``.
    """
    if not any(argument in ("-h", "--help") for argument in arguments):
        return arguments
    for at, argument in enumerate(arguments):
        if argument == "--model" and at + 1 < len(arguments):
            return ["--model.help", arguments[at + 1]]
        if argument.startswith("--model="):
            return ["--model.help", argument.partition("=")[2]]
    return arguments


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401 - one callback, several or none
    return [*value] if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _as_dict(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a jsonargparse Namespace
    return None if value is None else dict(value.as_dict() if hasattr(value, "as_dict") else value)
