"""A whole run: from a config to a finished model, in one worker or in each of several."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.calibration import calibrate, write_threshold
from livestar.evaluation.footage import Footage as HeldOut
from livestar.session import load_checkpoint as load_model_directory
from livestar.session import share_cores
from training.checkpoint import list_checkpoints, load_checkpoint, read_progress
from training.export import export, stored_dtype
from training.log import RunLog
from training.loop import Trainer
from training.parallel import distribute
from training.prepare import frames_per_second, load_base, make_feed, prompt_of, read_footage
from training.step import SequenceModel
from training.world import World

if TYPE_CHECKING:
    from livestar.evaluation.calibration import Objective
    from training.config import TrainConfig
    from training.log import Reporter
    from training.prepare import Footage

CONFIG, CHECKPOINTS, MODEL = "config.json", "checkpoints", "model"
MAY_CHANGE = {"run", "data.cache"}
"""Settings in which a run that goes on may differ from the one that was killed."""


def train(config: TrainConfig, world: World, reporter: Reporter, *, started: float | None = None) -> Path:
    """Trains, and writes the best model to `<run.output>/model`; returns that folder.

    A run that was killed goes on from its newest checkpoint.  Raises `InvalidConfig` where the folder holds a run of other
    settings, and the errors of its parts.
    """
    started = time.monotonic() if started is None else started
    folder = Path(config.run.output)
    if world.is_first:
        claim(folder, config)
    model, tokenizer, base = load_base(config)
    footage = read_footage(config.data)
    if not world.is_first:
        world.barrier()  # the first worker looks at the footage, the others find what it saw
    feed = make_feed(config, model, prompt_of(model, tokenizer), footage, world, reporter, dtype=stored_dtype(base))
    if world.is_first:
        world.barrier()
    checkpoints = folder / CHECKPOINTS
    done = read_progress(list_checkpoints(checkpoints)[-1]).step if list_checkpoints(checkpoints) else 0
    log = RunLog(folder, step=done) if world.is_first else None
    trainer = Trainer(
        config=config,
        world=world,
        model=distribute(SequenceModel(model), config, world),
        feed=feed,
        folder=checkpoints,
        reporter=reporter,
        log=log,
    )
    try:
        outcome = trainer.run(started)
    finally:
        if log is not None:
            log.close()
    if outcome.stopped_early:
        reporter.say(f"stopped early: the held-out loss was lowest at step {outcome.progress.best_step}")
    if world.is_first:
        finish(config, footage, reporter)
    world.barrier()
    return folder / MODEL


def finish(config: TrainConfig, footage: Footage, reporter: Reporter) -> None:
    """Exports the best checkpoint, or the last where nothing was held out, and sets its threshold."""
    folder = Path(config.run.output)
    found = list_checkpoints(folder / CHECKPOINTS)
    last = read_progress(found[-1])
    best = next((path for path in found if read_progress(path).step == last.best_step), found[-1])
    model, _, base = load_base(config)
    load_checkpoint(best, SequenceModel(model), None)
    target = export(model, config, base, folder / MODEL)
    reporter.say(f"step {read_progress(best).step} is written to {target}")
    if config.run.calibrate != "none" and footage.holdout:
        set_threshold(target, config, footage, reporter)


def set_threshold(directory: Path, config: TrainConfig, footage: Footage, reporter: Reporter) -> None:
    """Finds the threshold on the held-out footage and writes it into the model's config."""
    checkpoint = load_model_directory(directory)
    fps = frames_per_second(config.data, checkpoint.model)
    shown = HeldOut(footage.holdout, fps=fps, image_size=checkpoint.model.config.vision.image_size)
    workers = share_cores(checkpoint.model, os.cpu_count() or 1)
    try:
        objective: Objective = "f1" if config.run.calibrate == "f1" else "rate"
        found = calibrate(checkpoint, shown, objective=objective, num_workers=workers)
    except InvalidConfig as error:
        reporter.say(f"the threshold was not set: {error}")
        return
    write_threshold(directory, found.threshold)
    reporter.say(
        f"threshold {found.threshold:.4f} is set on held-out footage: it responds to {found.response_rate:.1%} of frames"
    )


def claim(folder: Path, config: TrainConfig) -> None:
    """Notes the config in the run's folder; refuses a folder that holds a run of other settings."""
    path = folder / CONFIG
    values = json.loads(json.dumps(config.as_dict()))
    try:
        if path.exists():
            changed = _differences(json.loads(path.read_text(encoding="utf-8")), values)
            if changed:
                raise InvalidConfig(
                    f"{folder} holds a run with another {', '.join(changed)}; choose another run.output, or start it anew with --restart"
                )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LiveStarError(f"{folder} cannot be used for a run ({error}); choose another run.output") from error


def _differences(old: object, new: object, prefix: str = "") -> list[str]:
    if prefix in MAY_CHANGE or old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [prefix or "config"]
    names = sorted(old.keys() | new.keys())
    return [d for name in names for d in _differences(old.get(name), new.get(name), f"{prefix}.{name}".lstrip("."))]


def restart(folder: Path) -> None:
    """Forgets a run: removes its checkpoints, metrics and model, and nothing else."""
    for name in (CHECKPOINTS, "tensorboard", MODEL, "adapter"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CONFIG, "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)
