"""The Python door: the same method, datamodule and Trainer that the command builds."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning_utilities.core.rank_zero import rank_zero_only

from unlearun import runs
from unlearun.data import Source, UnlearningDataModule
from unlearun.errors import UnlearunError, check_bounds, closest
from unlearun.files import write_whole
from unlearun.kinds import check_kinds
from unlearun.methods import METHODS, UnlearningMethod
from unlearun.models import ModelLike, TokenizerLike, is_sharded, load_model, load_tokenizer, save_model
from unlearun.own_code import look_here

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_method(name: str | type[UnlearningMethod]) -> type[UnlearningMethod]:
    """Return the method of a name: the class name, whatever the case and underscores, or the dotted path of one's own.

    Args:
        name: "grad_ascent", "GradAscent", "rmu" and so on, "my_module.MyMethod", or a class.

    Raises:
        UnlearunError: There is no such method.

    >>> find_method("grad_diff").__name__
    'GradDiff'
    """
    if isinstance(name, type) and issubclass(name, UnlearningMethod):
        return name
    if not isinstance(name, str):
        raise UnlearunError(f"the method is {name!r}; expected its name, such as 'rmu', or a class of your own")
    if "." in name:
        return _import_method(name)
    names = {method.__name__.lower(): method for method in METHODS}
    wanted = name.lower().replace("_", "")
    if wanted not in names:
        known = [method.__name__ for method in METHODS]
        raise UnlearunError(f"there is no method {name!r}.{closest(wanted, names)} Known: {', '.join(known)}")
    return names[wanted]


def _import_method(path: str) -> type[UnlearningMethod]:
    look_here()
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise UnlearunError(
            f"the method {path} cannot be imported ({error}); expected the dotted path of a class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, UnlearningMethod)):
        raise UnlearunError(f"{path} is no method; derive it from unlearun.methods.UnlearningMethod")
    return found


class Unlearning:
    """Unlearn in a few lines of Python.

    Args:
        method: The name of a method, such as "grad_ascent", "grad_diff", "npo", "dpo", "rmu", "simnpo"; or one of your
            own, a class or its dotted path.
        model: A hub id, a folder, a GGUF file, ``pocket``, or a model object.
        tokenizer: A hub id, a folder or a tokenizer object. None: the model's own.
        output_dir: The folder of all runs.
        seed: Seeds the order of rows, dropout and adapters. What makes runs of several seeds comparable does not follow
            it: which rows are evaluated, and refusals (``seed`` of `load_data`), and the directions of RMU
            (``vector_seed``).
        kwargs: Arguments of the method, such as ``gamma=2.0`` or ``target_layer=12``.

    Raises:
        UnlearunError: The method or one of its arguments does not exist.

    Example::

        unlearner = Unlearning(method="simnpo", model="gpt2", beta=2.5)
        unlearner.load_data(forget_data="forget.json", retain_data="retain.json")
        unlearner.run(batch_size=4, learning_rate=1e-5, num_epochs=5)
        print(unlearner.evaluate())
        unlearner.save_model("./unlearned")
    """

    def __init__(
        self,
        method: str | type[UnlearningMethod],
        model: ModelLike,
        tokenizer: TokenizerLike | None = None,
        output_dir: str | Path | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        runs.quiet()
        cls = find_method(method)
        _check_arguments(cls, {"model": model, "tokenizer": tokenizer, **kwargs})
        runs.check_seed(seed)
        self.seed = seed
        seed_everything(seed, workers=True, verbose=False)
        self.method = cls(model, tokenizer=tokenizer, **kwargs)
        self.output_dir = runs.OUTPUT_DIR if output_dir is None else output_dir
        self.data: UnlearningDataModule | None = None
        given = {**_defaults(cls), "model": model, "tokenizer": tokenizer, **kwargs}
        self._config: dict[str, Any] = {
            "seed_everything": seed,
            "output_dir": str(self.output_dir),
            "model": {"class_path": _class_path(cls), "init_args": given},
            "optimizer": self.method.optimizer,
        }

    def load_data(
        self,
        forget_data: Source | None,
        retain_data: Source | None = None,
        holdout_data: Source | None = None,
        utility_data: Source | None = None,
        **kwargs: Any,
    ) -> None:
        """Read and check the data; no model is loaded yet.

        Args:
            forget_data: The rows to forget: a file, a hub id, a mapping, a list of dicts or a datasets.Dataset.
            retain_data: The rows to keep.
            holdout_data: Rows that the model never saw.
            utility_data: Knowledge that must survive; a source, or a mapping of names to sources.
            kwargs: Further arguments of `UnlearningDataModule`, such as ``max_length=128`` or ``question_key="q"``.

        Raises:
            UnlearunError: A file is missing or broken, or an argument does not exist.
        """
        arguments: dict[str, Any] = {
            "forget": forget_data,
            "retain": retain_data,
            "holdout": holdout_data,
            "utility": utility_data,
            **kwargs,
        }
        _check_arguments(UnlearningDataModule, arguments)
        self.data = UnlearningDataModule(**arguments)
        self.data.run_seed = self.seed
        self.data.read()
        self._config["data"] = {**_defaults(UnlearningDataModule), **arguments}

    def run(
        self,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        num_epochs: int | None = None,
        gradient_accumulation_steps: int | None = None,
        resume: str | Path | None = None,
        **kwargs: Any,
    ) -> Path | None:
        """Unlearn, evaluate before and after, and write the run folder.

        Args:
            batch_size: Rows of each set in a micro-batch; None leaves that of `load_data`.
            learning_rate: Of AdamW; None leaves that of the last run, which at first is 1e-5.
            num_epochs: Passes over the forget set; None: 5.
            gradient_accumulation_steps: Micro-batches an optimizer step; None: 1.
            resume: The folder of a run with these settings that was broken off: it goes on from its last checkpoint.
                "last": the newest that there is.
            kwargs: Any argument of Lightning's Trainer, such as ``precision="bf16-mixed"``.

        Returns:
            The run folder.

        Raises:
            UnlearunError: The data are not loaded, an argument does not exist, or there is no run to go on with.
            DivergenceError: The run was stopped: see `DivergenceGuard`, which ``callbacks`` may hold with other
                settings.
        """
        data = self._loaded_data()
        check_bounds(batch_size=(batch_size, 1), learning_rate=(learning_rate, 0.0))
        if batch_size is not None:
            data.batch_size = self._config["data"]["batch_size"] = batch_size
        if learning_rate is not None:
            given = self.method.optimizer
            changed = {**given, "init_args": {**given["init_args"], "lr": learning_rate}}
            self.method.optimizer = self._config["optimizer"] = changed
        named = {"max_epochs": num_epochs, "accumulate_grad_batches": gradient_accumulation_steps}
        arguments = {**kwargs, **{name: value for name, value in named.items() if value is not None}}
        self._config["trainer"] = {**runs.TRAINER_DEFAULTS, **arguments}
        existing = None if resume is None else self._find_run(resume)
        if existing is not None and runs.is_finished(existing):
            raise UnlearunError(f"{existing} is finished; to train further, load_model({str(existing / 'model')!r})")
        trainer = self._make_trainer(arguments, existing)
        checkpoint = None if existing is None else runs.newest_checkpoint(existing)
        with runs.running_trainer():
            trainer.fit(self.method, datamodule=data, ckpt_path=checkpoint)
        runs.finish(trainer, self.method, data)
        folder = runs.run_folder(trainer)
        if folder is not None and (folder / "model").is_dir():  # what another run would begin with
            self._config["model"]["init_args"]["model"] = str(folder / "model")
        return folder

    def evaluate(self, metrics: Sequence[str] | None = None, retain_reference: str | None = None) -> runs.Results:
        """Measure the model as it is now, before or after `run`.

        Args:
            metrics: Names such as "perplexity", "forget_quality", "model_utility", "rouge", "mia", or the dotted path
                of a class; None for `final_metrics` of `load_data`, which are all that the data allow but what is
                opt-in, where nothing else is said there.
            retain_reference: Records of a model that never saw the forget set, for what is relative to one: an
                ``eval/step=N.json``, a run folder or a published TOFU log. None: that of `load_data`, if any.

        Returns:
            A mapping: a metric of the forget set stands under its bare name, those of other sets under
            ``set/metric``. Printing it gives a table.

        Raises:
            UnlearunError: A metric does not exist or lacks its data, or the data are not loaded.
        """
        data = self._loaded_data()
        arguments = self._config.get("trainer", {})
        # Without a recorder or logger: looking at a model leaves nothing behind.
        trainer = Trainer(**{**_evaluation_only(arguments), "logger": False, "enable_checkpointing": False})
        metrics = [metrics] if isinstance(metrics, str) else metrics
        usual = data.final_metrics, data.retain_reference
        if metrics is not None:
            data.final_metrics = list(metrics)
        if retain_reference is not None:
            data.retain_reference = str(retain_reference)
        try:
            trainer.validate(self.method, datamodule=data, verbose=False)
        finally:
            data.final_metrics, data.retain_reference = usual
        evaluation = self.method.evaluation
        if evaluation is None:
            raise UnlearunError("nothing was evaluated; is limit_val_batches 0?")
        return runs.Results.of(evaluation, metrics)

    def save_model(self, folder: str | Path, adapter: bool = False) -> Path:
        """Write the model and its tokenizer as a Hugging Face folder; of several processes the first does.

        Args:
            folder: Where to; must not hold files.
            adapter: Whether adapters (see `LoRA`) are written alone instead of merged into the model.

        Returns:
            The folder.
        """
        self._load()
        if getattr(rank_zero_only, "rank", 0) == 0 or is_sharded(self.method.policy):  # whose shares all have
            return save_model(self.method.model, self.method.tokenizer, folder, adapter)
        return Path(folder)

    def load_model(self, folder: str | Path) -> None:
        """Take the weights of a saved model, to evaluate or unlearn it further.

        Args:
            folder: What `save_model` or a run wrote.
        """
        name, old = str(folder), self.method
        init_args = {**self._config["model"]["init_args"], "model": name, "tokenizer": None}
        trusted = old.trust_remote_code
        loaded = {
            "model": load_model(name, old.dtype_name, trusted=trusted),
            "tokenizer": load_tokenizer(name, trusted),
        }
        self.method = type(old)(**{**init_args, **loaded})
        self.method.optimizer, self.method.lr_scheduler = old.optimizer, old.lr_scheduler
        self._config["model"]["init_args"] = init_args

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model inside, loaded if it is not yet."""
        self._load()
        return self.method.model

    def _load(self) -> None:
        self.method.configure_model()
        self.method.policy.eval()

    def _loaded_data(self) -> UnlearningDataModule:
        if self.data is None:
            raise UnlearunError("there are no data yet; call load_data(forget_data=..., retain_data=...) first")
        return self.data

    def _make_trainer(self, arguments: dict[str, Any], existing: Path | None = None) -> Trainer:
        _check_arguments(Trainer, arguments)
        completed = {**runs.TRAINER_DEFAULTS, **arguments}
        run = runs.run_arguments(completed, self.output_dir, self.method, self._write_config, existing)
        with runs.making_trainer():
            return Trainer(**{**completed, **run})

    def _find_run(self, resume: str | Path) -> Path:
        if str(resume) != "last":
            return runs.check_run(resume)
        return runs.find_run(Path(self.output_dir) / type(self.method).__name__.lower(), _plain(self._config))

    def _write_config(self, folder: Path) -> None:
        text = yaml.safe_dump(_plain(self._config), sort_keys=False, allow_unicode=True)
        note = "# unlearun fit --config config.yaml runs this again"
        if "<object" in text:
            note += ", once a name stands in place of each <object>"
        write_whole(folder / "config.yaml", f"{note}\n{text}")


def _evaluation_only(arguments: dict[str, Any]) -> dict[str, Any]:
    kept = ("accelerator", "devices", "strategy", "num_nodes", "precision", "enable_progress_bar")
    return {name: arguments[name] for name in kept if name in arguments}


def _class_path(method: type[UnlearningMethod]) -> str:
    """Name a method as a config does: a shipped one by its name, one of the user's own by its path."""
    return method.__name__ if method in METHODS else f"{method.__module__}.{method.__qualname__}"


def _parameters(owner: type) -> dict[str, inspect.Parameter]:
    """Return what a constructor takes, those of its bases included where it hands ``**kwargs`` on to them."""
    found: dict[str, inspect.Parameter] = {}
    for cls in owner.__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return {name: parameter for name, parameter in found.items() if name not in getattr(owner, "fixed", ())}


def _defaults(owner: type) -> dict[str, Any]:
    parameters = _parameters(owner).items()
    return {name: parameter.default for name, parameter in parameters if parameter.default is not parameter.empty}


def _check_arguments(owner: type, arguments: dict[str, Any]) -> None:
    """Refuse an argument that a constructor does not take, or of another kind, and say what may be meant."""
    known = _parameters(owner)
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise UnlearunError(f"{owner.__name__} has no argument {unknown[0]!r}.{closest(unknown[0], known)}")
    if owner is not Trainer:  # which checks its own
        check_kinds(owner, arguments)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a config
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    return f"<object {type(value).__name__}>"  # a name of its own would not say which weights it holds
