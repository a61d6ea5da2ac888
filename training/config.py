"""Every setting of a training run, read from TOML; named configs lie in `training/configs`.

A key that does not exist is refused with the nearest one that does; values are checked where they are made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import tomllib
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from livestar.errors import InvalidConfig
from training.sequence import LayoutName, Visibility

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Precision = Literal["float32", "bfloat16"]
Sharding = Literal["none", "fsdp"]
BadVideo = Literal["raise", "skip"]
Calibration = Literal["none", "truth", "f1"]
StoredDType = Literal["auto", "float32", "bfloat16", "float16"]
C = TypeVar("C")

SUFFIX = ".toml"
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes", type(None): '"none"'}
"""What errors call the types of values."""


def _check(ok: bool, name: str, value: object, remedy: str) -> None:
    if not ok:
        raise InvalidConfig(f"{name} is {value!r}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What is trained."""

    base: str = "livestar-mini"
    """Checkpoint to start from: a directory in the serving format, or the packaged `livestar-mini`."""
    train: tuple[str, ...] = ("mlp1", "language_model")
    """Modules to train, by the beginning of their parameters' names; all others are frozen."""
    precision: Precision = "float32"
    """Number format of activations; `bfloat16` keeps weights and optimiser in float32 and computes in bfloat16."""
    gradient_checkpointing: bool = False
    """Compute each layer again for its gradients instead of keeping its activations."""

    def __post_init__(self) -> None:
        _check(bool(self.train), "model.train", self.train, 'name at least one module, such as "mlp1"')


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters in place of full weights."""

    rank: int = 0
    """Rank of the adapters; 0 trains the modules of `model.train` in full."""
    alpha: float = 32.0
    """Scale: the adapters' product is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is zeroed in training."""
    targets: tuple[str, ...] = ("wqkv", "wo", "w1", "w2", "w3")
    """Linear layers of the language model that get an adapter."""
    also_train: tuple[str, ...] = ()
    """Modules trained in full beside the adapters, such as "mlp1"."""
    merge: bool = True
    """Write a merged checkpoint; without it the adapter alone, which names its base."""

    def __post_init__(self) -> None:
        _check(0 <= self.rank <= 4096, "lora.rank", self.rank, "give 0 for none, or a rank such as 16, up to 4096")
        _check(self.alpha > 0, "lora.alpha", self.alpha, "give a number above 0")
        _check(0 <= self.dropout < 1, "lora.dropout", self.dropout, "give a share from 0, below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What it is trained on."""

    files: tuple[str, ...] = ()
    """Annotation files: events, timestamped text, released JSONL or meta JSON (docs/data.md)."""
    repeats: tuple[int, ...] = ()
    """How often the videos of each of `files` come in an epoch; empty is once each."""
    holdout_files: tuple[str, ...] = ()
    """Annotation files to measure held-out loss on; without any, the end of every training video is held out."""
    part: str = ""
    """Part of every video to train on, such as "0:0.6" or "10s:70s"; empty is all of it."""
    holdout: float = 0.15
    """Share at the end of every video's part that is held out, where there are no `holdout_files`; 0 holds nothing out."""
    fps: float | None = None
    """Frames per second of media to look at; none takes the model's own, or 1."""
    max_frames: int = 32
    """Longest sequence, in frames; a longer video is cut into windows anew in every epoch."""
    windows_per_video: float = 0.0
    """Windows of one video in an epoch; 0 takes as many as cover it once."""
    max_first_frame: int = 1
    """Sequences are numbered from a frame drawn from 1 to this, as streams whose first frames have been evicted are."""
    max_copies: int = 0
    """Most copies of a caption per clip, drawn anew in every epoch; 0 puts one behind every frame."""
    cache: str = ".livestar-cache"
    """Folder in which the visual tokens are kept."""
    on_bad: BadVideo = "raise"
    """What to do about a video that cannot be decoded."""

    def __post_init__(self) -> None:
        _check(
            len(self.repeats) in (0, len(self.files)) and all(1 <= number <= 1000 for number in self.repeats),
            "data.repeats",
            self.repeats,
            "give a number from 1 to 1000 for each of data.files, or none",
        )
        _check(0 <= self.holdout < 1, "data.holdout", self.holdout, "give a share from 0, below 1")
        _check(self.fps is None or 0.001 <= self.fps <= 240, "data.fps", self.fps, "give 0.001 to 240")
        _check(self.max_frames >= 2, "data.max_frames", self.max_frames, "give at least 2")
        _check(self.max_first_frame >= 1, "data.max_first_frame", self.max_first_frame, "give at least 1")
        _check(self.max_copies >= 0, "data.max_copies", self.max_copies, "give 0 or more")
        _check(0 <= self.windows_per_video <= 10_000, "data.windows_per_video", self.windows_per_video, "give 0 to 10000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScamConfig:
    """How frames and captions are laid out, and who sees whom."""

    visibility: Visibility = "leaf"
    """`leaf` hides every caption from what follows, `terminal` keeps each clip's last, `causal` hides none."""
    layout: LayoutName = "inference"
    """Turns as when watching with the scam gate (`inference`), or one per frame as released (`training`)."""
    weigh_clips: bool = True
    """Let every clip count the same, however long; without it every copy of a caption does, as released."""
    turn_weight: float = 0.0
    """Weight of learning where the user's turn ends, for the end-of-turn baseline; 0 leaves it out."""

    def __post_init__(self) -> None:
        _check(self.turn_weight >= 0, "scam.turn_weight", self.turn_weight, "give 0 or more")
        _check(
            not self.turn_weight or self.layout == "inference",
            "scam.turn_weight",
            self.turn_weight,
            "the training layout ends a turn behind every frame; set scam.layout to inference",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How it is trained."""

    epochs: float = 1.0
    """Passes over the data."""
    max_steps: int = 0
    """Most optimiser steps, whatever the epochs; 0 is no limit."""
    max_minutes: float = 0.0
    """Plan for at most this long: steps are timed, and the schedule ends in time; 0 is no limit."""
    max_batch_tokens: int = 8192
    """Most rows in one forward pass of a worker."""
    max_batch_sequences: int = 0
    """Most sequences in one forward pass of a worker; 0 is no limit."""
    accumulate: int = 1
    """Forward passes of a worker per optimiser step."""
    learning_rate: float = 4e-5
    """Peak learning rate."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises; it then falls along a cosine to 0."""
    weight_decay: float = 0.05
    """AdamW's, on matrices; norms and biases have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        _check(self.epochs > 0, "optim.epochs", self.epochs, "give a number above 0")
        _check(self.max_steps >= 0, "optim.max_steps", self.max_steps, "give 0 or more")
        _check(self.max_minutes >= 0, "optim.max_minutes", self.max_minutes, "give 0 or more")
        _check(self.max_batch_tokens >= 64, "optim.max_batch_tokens", self.max_batch_tokens, "give at least 64")
        _check(self.max_batch_sequences >= 0, "optim.max_batch_sequences", self.max_batch_sequences, "give 0 or more")
        _check(self.accumulate >= 1, "optim.accumulate", self.accumulate, "give at least 1")
        _check(self.learning_rate > 0, "optim.learning_rate", self.learning_rate, "give a number above 0")
        _check(0 <= self.warmup < 1, "optim.warmup", self.warmup, "give a share from 0, below 1")
        _check(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "give 0 or more")
        _check(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "give two numbers from 0, below 1")
        _check(self.max_grad_norm >= 0, "optim.max_grad_norm", self.max_grad_norm, "give 0 or more")
        _check(0 <= self.seed < 2**63, "optim.seed", self.seed, "give a number from 0, below 2^63")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Where it goes, and how often it is looked at."""

    output: str = "runs/train"
    """Folder of the run: checkpoints, metrics, and the finished model in `model`."""
    evaluate_every: int = 50
    """Steps between measurements of the held-out loss; 0 never measures it."""
    checkpoint_every: int = 50
    """Steps between checkpoints, from which a killed run goes on."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay, beside the best."""
    patience: int = 0
    """Measurements without a better held-out loss after which to stop; 0 never stops early."""
    workers: int = 1
    """Processes to train in; more than one runs on Ray."""
    use_gpu: bool = False
    """Whether each worker of Ray has a GPU of its own; without Ray the GPU is taken where there is one, whatever this says."""
    sharding: Sharding = "none"
    """`fsdp` splits weights, gradients and optimiser between the workers, for models that do not fit one."""
    calibrate: Calibration = "truth"
    """Set the model's threshold on held-out footage: to the annotation's own response rate, or to the best boundary F1."""
    calibrate_videos: int = 20
    """Most held-out videos to set it on, spread evenly; they are watched up to ten times."""

    dtype: StoredDType = "auto"
    """Number format that the finished model is stored in; `auto` is its base's."""

    def __post_init__(self) -> None:
        _check(bool(self.output), "run.output", self.output, "name a folder")
        _check(self.evaluate_every >= 0, "run.evaluate_every", self.evaluate_every, "give 0 or more")
        _check(self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, "give at least 1")
        _check(self.keep_checkpoints >= 1, "run.keep_checkpoints", self.keep_checkpoints, "give at least 1")
        _check(self.patience >= 0, "run.patience", self.patience, "give 0 or more")
        _check(
            not self.patience or self.evaluate_every > 0,
            "run.patience",
            self.patience,
            "the held-out loss is never measured where run.evaluate_every is 0; set that, or run.patience to 0",
        )
        _check(self.calibrate_videos >= 1, "run.calibrate_videos", self.calibrate_videos, "give at least 1")
        _check(1 <= self.workers <= 4096, "run.workers", self.workers, "give 1 to 4096")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A whole training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: DataConfig = field(default_factory=DataConfig)
    scam: ScamConfig = field(default_factory=ScamConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, to write down or to send to a worker."""
        return dataclasses.asdict(self)


def named_configs() -> dict[str, str]:
    """Names of the configs that come with LiveStar, and the first line of each."""
    folder = resources.files("training") / "configs"
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    return {
        name.removesuffix(SUFFIX): (folder / name).read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ") for name in found
    }


def load_config(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The config of a TOML file or of one that comes with LiveStar, with `key=value` overrides.

    Relative paths in `data` and `run` are relative to the working folder.  Raises `InvalidConfig`.
    """
    own = named_configs()
    try:
        path = resources.files("training") / "configs" / (name + SUFFIX) if name in own else Path(name)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InvalidConfig(f"config {name!r} is neither a file nor one of {', '.join(own)}; livestar train --list") from error
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"config {name!r} cannot be read ({error}); give a TOML file") from error
    values = _parse(text, name)
    for override in overrides:
        _override(values, override)
    return parse_config(values, name)


def parse_config(values: Mapping[str, object], name: str = "config") -> TrainConfig:
    """Checks and types the contents of a config; `name` is what errors call it."""
    return _make(TrainConfig, values, name, "")


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: also numbers and lists beyond Python's limits
        raise InvalidConfig(f"{name} is not TOML: {error}") from error


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name and section):
        raise InvalidConfig(f"--set {override!r} is not section.key=value; write for example --set optim.learning_rate=1e-4")
    value: object = text.strip()  # a bare word is text, so that --set model.base=livestar-mini needs no quotes
    with contextlib.suppress(ValueError, RecursionError):
        parsed = tomllib.loads(f"value = {text}")
        if parsed.keys() == {"value"} and isinstance(parsed["value"], bool | int | float | str | list):  # a date is text too
            value = parsed["value"]
    table = values.setdefault(section, {})
    if isinstance(table, dict):
        table[name] = value


def _make(kind: type[C], values: object, name: str, prefix: str) -> C:
    if not isinstance(values, dict):
        raise InvalidConfig(f"{name}: {prefix.rstrip('.') or 'the config'} is {values!r}; expected a table")
    hints = typing.get_type_hints(kind)
    unknown = [key for key in values if key not in hints]
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, 1)
        guess = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(prefix + key for key in hints)}"
        raise InvalidConfig(f"{name}: there is no key {prefix}{unknown[0]}; {guess}")
    made = {key: _value(hints[key], value, name, prefix + key) for key, value in values.items()}
    try:
        return kind(**made)
    except InvalidConfig as error:
        raise InvalidConfig(f"{name}: {error}") from None


def _value(hint: Any, value: object, name: str, key: str) -> Any:
    """`value` as the type that a field is annotated with."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _make(hint, value, name, f"{key}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise InvalidConfig(f"{name}: {key} is {value!r}; choose one of {', '.join(map(str, args))}")
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        if args[-1] is not ... and len(items) != len(args):
            raise InvalidConfig(f"{name}: {key} is {value!r}; expected a list of {len(args)}")
        return tuple(_value(args[0], item, name, key) for item in items)
    kinds = args if args else (hint,)
    if type(None) in kinds and value in (None, "none"):  # TOML has no word for it
        return None
    if float in kinds and type(value) in (int, float):
        return _number(value, name, key)
    for kind in (bool, int, str):
        if kind in kinds and type(value) is kind:
            return value
    raise InvalidConfig(f"{name}: {key} is {value!r}; expected {' or '.join(KINDS[kind] for kind in kinds)}")


def _number(value: Any, name: str, key: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidConfig(f"{name}: {key} is {value!r}; expected a finite number")
    return number
