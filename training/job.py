"""The same run on Ray Train: several workers, on this machine or on a cluster, started again where one dies."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device

from livestar.errors import InvalidConfig, LiveStarError
from livestar.model.mini import model_directory
from training.config import TrainConfig, parse_config
from training.run import MODEL, train
from training.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from training.log import Reporter

MAX_FAILURES = 3
"""Times that workers may die before the run is given up; each time they go on from the newest checkpoint."""
REPORT_EVERY = 10
"""Steps between reports to Ray, which every worker waits for."""
AUTH_MODE = "RAY_AUTH_MODE"


def train_on_ray(config: TrainConfig, *, address: str | None, reporter: Reporter) -> Path:
    """Runs `config` on the Ray cluster at `address`, or on one that is started here and stopped afterwards where it is None.

    Files of the config must be where all workers see them.  Returns the finished model's folder.  Raises `LiveStarError` where
    the cluster is too small or the run failed.
    """
    # Ray would turn on token authentication by itself, and leave a token behind that its own commands then disagree about.
    os.environ.setdefault(AUTH_MODE, "disabled" if address is None else "token")
    own = address is None and not ray.is_initialized()
    try:
        ray.init(address=address, include_dashboard=False if own else None, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InvalidConfig(
            f"no Ray cluster answers at {address!r} ({error}); give --ray local, or start one: ray start --head"
        ) from error
    try:
        _check_room(config)
        name = Path(config.run.output).name
        result = TorchTrainer(
            _worker,
            train_loop_config=absolute(config).as_dict(),
            scaling_config=ScalingConfig(num_workers=config.run.workers, use_gpu=config.run.use_gpu),
            run_config=RunConfig(
                name=f"livestar-{name}",
                storage_path=str(Path(config.run.output).resolve() / "ray"),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[_Relay(reporter)],
            ),
        ).fit()
        if result.error is not None:
            raise LiveStarError(f"the run failed on its workers: {_root(result.error)}")
    except ray.train.v2.api.exceptions.TrainingFailedError as error:
        raise LiveStarError(f"the run failed on its workers: {_root(error)}") from error
    finally:
        if own:
            ray.shutdown()
    return Path(config.run.output) / MODEL


def absolute(config: TrainConfig) -> TrainConfig:
    """The same config with paths that do not depend on the working folder."""

    def full(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(name).resolve()) for name in names)

    data = replace(
        config.data,
        files=full(config.data.files),
        holdout_files=full(config.data.holdout_files),
        cache=str(Path(config.data.cache).resolve()),
    )
    model = replace(config.model, base=str(model_directory(Path(config.model.base)).resolve()))
    return replace(config, data=data, model=model, run=replace(config.run, output=str(Path(config.run.output).resolve())))


def _check_room(config: TrainConfig) -> None:
    """Refuses at once what Ray would wait for forever."""
    kind = "GPU" if config.run.use_gpu else "CPU"
    total = ray.cluster_resources().get(kind, 0)
    if total < config.run.workers:
        raise InvalidConfig(f"run.workers is {config.run.workers}, but the Ray cluster has {total:g} {kind}s; lower run.workers")


def _worker(values: dict[str, Any]) -> None:
    """What every worker runs."""
    context = ray.train.get_context()
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=get_device())
    train(parse_config(values, "the run's config"), world, _ToRay())


class _ToRay:
    """Reports from a worker to Ray; every worker calls it for the same steps."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Only the steps go through Ray."""

    def say(self, text: str) -> None:
        """Ends up in the worker's log."""
        print(text, flush=True)

    def step(self, record: Mapping[str, float | int]) -> None:
        """Reports measurements, and steps now and then."""
        if "holdout_loss" in record or record["step"] % REPORT_EVERY == 0:
            ray.train.report(dict(record))


class _Relay(UserCallback):  # type: ignore[misc]  # Ray's classes are not typed
    """Shows the first worker's reports in the terminal that started the run."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called by Ray for each round of reports."""
        self._reporter.step(metrics[0])
        self._reporter.say(" ".join(f"{name} {value:.4g}" for name, value in metrics[0].items()))


def _root(error: BaseException) -> str:
    """The last line of what a worker raised."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
