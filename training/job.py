"""The same run on Ray Train: several workers, on this machine or on a cluster, started again where one dies."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import torch
from ray.exceptions import AuthenticationError, RayError
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from livestar.errors import InvalidConfig, LiveStarError
from livestar.session import resolve_device
from training.config import TrainConfig, parse_config
from training.lock import locked
from training.log import Silent
from training.prepare import look
from training.relay import FromFile, ToFile
from training.run import MODEL, Stopped, absolute, claim, is_finished, train
from training.stop import StopRequest
from training.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.log import Reporter

MAX_FAILURES = 3
"""Times that workers may die before the run is given up; each time they go on from the newest checkpoint."""
RAY, REPORTS, STOP, ERROR = "ray", "reports.jsonl", "stop", "error"
"""Ray's own folder in that of the run; there, what the first worker reports, the file that asks it to stop, and the one that says
why starting the workers again would not help."""
POLL_S = 0.25
LOCAL = "local"
TOKEN, TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
OWN_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without a GPU see what they are told to; this silences a warning
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}
"""Environment of a cluster that is started for the run; what the user has set stays."""


def train_on_ray(config: TrainConfig, *, address: str, reporter: Reporter, started: float | None = None) -> Path:
    """Runs `config` on the Ray cluster at `address`; `local` starts one here and stops it afterwards.

    Files of the config must be where all workers see them.  `started` is when the command was, by `time.monotonic`.  Returns the
    finished model's folder.  Raises `LiveStarError` where the cluster is too small or the run failed, and `Stopped` where it was
    asked to.
    """
    config = absolute(config)
    folder = Path(config.run.output)
    with locked(folder):
        claim(folder, config)
        if is_finished(folder):
            reporter.say(f"the run in {folder} is finished; start it anew with --restart, or choose another run.output")
            return folder / MODEL
        _train_in(config, address, reporter, started)
    return folder / MODEL


def _train_in(config: TrainConfig, address: str, reporter: Reporter, started: float | None) -> None:
    with cluster(address):
        _check_room(config)
        _hush_ray_data()
        look(config, reporter, resolve_device("auto"))  # before the workers take the CPUs that decoding needs
        elapsed_s = 0.0 if started is None else time.monotonic() - started
        _run(config, reporter, began=time.time() - elapsed_s)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connected to a cluster.  Raises `InvalidConfig` where there is none."""
    is_own = address == LOCAL
    with contextlib.ExitStack() as stack:
        if is_own:
            for name, value in OWN_CLUSTER.items():
                os.environ.setdefault(name, value)
            if not os.environ.get(TOKEN) and not os.environ.get(TOKEN_PATH):
                # Ray asks for a token by itself; without this it would leave one behind in the home folder, which other
                # commands of Ray then stumble over.
                os.environ[TOKEN] = secrets.token_hex(32)
                stack.callback(os.environ.pop, TOKEN, None)
        try:
            ray.init(
                address=address,
                include_dashboard=False if is_own else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
        except (AuthenticationError, ConnectionError, RayError, RuntimeError, ValueError) as error:
            raise InvalidConfig(
                f"no Ray cluster can be used at {address!r} ({_line(error)}); give --ray local, or start one: ray start --head"
            ) from error
        stack.callback(ray.shutdown)
        yield


def _run(config: TrainConfig, reporter: Reporter, *, began: float) -> None:
    """Starts the workers and waits for them, passing on what they report and a request to stop.

    `began` is when the command was, by the clocks of all machines.
    """
    folder = Path(config.run.output)
    (folder / RAY).mkdir(exist_ok=True)
    for name in (STOP, ERROR):
        (folder / RAY / name).unlink(missing_ok=True)
    relay = FromFile(folder / RAY / REPORTS, reporter)
    trainer = TorchTrainer(
        work,
        train_loop_config={"config": config.as_dict(), "began": began},
        scaling_config=ScalingConfig(num_workers=config.run.workers, use_gpu=config.run.use_gpu),
        run_config=RunConfig(  # type: ignore[arg-type]  # Ray's own stubs know the older one only
            name="train",
            storage_path=str(folder / RAY),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # told to who waits
            failed.append(error)

    thread = threading.Thread(target=fit, name="ray train", daemon=True)  # Ray takes Ctrl-C where it has the main thread
    with StopRequest() as stop:
        thread.start()
        while thread.is_alive():
            thread.join(POLL_S)
            relay.poll()
            if stop():
                (folder / RAY / STOP).touch()
    relay.poll()
    if (folder / RAY / ERROR).exists():
        raise LiveStarError(f"the run failed on its workers: {(folder / RAY / ERROR).read_text(encoding='utf-8')}")
    if failed:
        raise LiveStarError(f"the run failed on its workers: {_cause(failed[0])}") from failed[0]
    if not is_finished(folder):
        raise Stopped("stopped behind a checkpoint; give the same command again to go on")


def _hush_ray_data() -> None:
    """Ray Data's account of its plans goes to its own file; ours says more."""
    import ray.data  # noqa: F401  (makes its handlers)

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)


def _check_room(config: TrainConfig) -> None:
    """Refuses at once what Ray would wait for forever."""
    kind = "GPU" if config.run.use_gpu else "CPU"
    total = ray.cluster_resources().get(kind, 0)  # type: ignore[no-untyped-call]
    if total < config.run.workers:
        remedy = "lower run.workers" if kind == "CPU" else "lower run.workers, or set run.use_gpu to false"
        raise InvalidConfig(f"run.workers is {config.run.workers}, but the Ray cluster has {total:g} {kind}s; {remedy}")


def work(values: dict[str, Any]) -> None:
    """What every worker runs."""
    context = ray.train.get_context()
    device = torch.device(get_device())
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), device=device, is_on_ray=True)
    config = parse_config(values["config"], "the run's config")
    started = time.monotonic() - max(0.0, time.time() - values["began"])
    folder = Path(config.run.output) / RAY
    if (folder / ERROR).exists():
        return
    reporter = ToFile(folder / REPORTS) if world.is_first else Silent()
    try:
        train(config, world, reporter, started=started, stop=StopRequest(folder / STOP))
    except Stopped:  # the driver tells
        return
    except LiveStarError as error:
        (folder / ERROR).write_text(str(error), encoding="utf-8")
        raise


def _cause(error: BaseException) -> str:
    """What went wrong on the first worker that says so, in one line."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        _, failure = min(error.worker_failures.items())
        return _line(getattr(failure, "_base_exc", failure))
    if isinstance(error, TrainingFailedError):
        return _line(getattr(error, "controller_failure", error))
    return _line(error)


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
