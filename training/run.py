"""A whole run: from a config to a finished model, in one worker or in each of several."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.calibration import calibrate, write_threshold
from livestar.evaluation.footage import Footage as HeldOut
from livestar.gate.threshold import DEFAULT_THRESHOLD
from livestar.model.config import load_config as load_model_config
from livestar.model.mini import model_directory
from livestar.session import load_checkpoint as load_model_directory
from livestar.session import share_cores
from training.checkpoint import PARTIAL, CheckpointFailed, check_checkpoint, list_checkpoints, load_checkpoint, step_of
from training.config import parse_config
from training.export import ADAPTER, export, publish, stored_dtype
from training.lock import locked
from training.log import CURVES, METRICS
from training.loop import Trainer
from training.parallel import distribute
from training.prepare import frames_per_second, load_base, make_feed, prompt_of, read_footage
from training.step import SequenceModel
from training.stop import StopRequest
from training.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.annotations.types import AnnotatedVideo
    from livestar.evaluation.calibration import Objective
    from livestar.session import Checkpoint
    from training.config import TrainConfig
    from training.log import Reporter
    from training.loop import Outcome
    from training.prepare import Footage

CONFIG, CHECKPOINTS, MODEL = "config.json", "checkpoints", "model"
MAY_CHANGE = {"run", "data.cache"}
"""Settings in which a run that goes on may differ from the one that was killed."""
MIN_FRAMES, MIN_BOUNDARIES = 60, 10
"""Held-out footage of less is too little to set a threshold on by itself."""
MIN_THRESHOLD = 1.0
"""Least threshold that a run sets: below, a caption that fits better than before would be answered."""


class Stopped(KeyboardInterrupt):
    """Somebody asked to stop, and the run has written a checkpoint."""


def train(
    config: TrainConfig,
    world: World,
    reporter: Reporter,
    *,
    started: float | None = None,
    stop: StopRequest | None = None,
) -> Path:
    """Trains, and writes the best model to `<run.output>/model`; returns that folder.

    A run that was killed goes on from its newest checkpoint; one that is finished is left alone.  Raises `InvalidConfig` where
    the folder holds a run of other settings or another training, `Stopped` where `stop` (None: signals) said so, and
    the errors of its parts.
    """
    # On Ray the command holds the folder, for its workers come and go.
    with locked(Path(config.run.output)) if world.is_first and not world.is_on_ray else contextlib.nullcontext():
        return _train(config, world, reporter, time.monotonic() if started is None else started, stop or StopRequest())


def _train(config: TrainConfig, world: World, reporter: Reporter, started: float, stop: StopRequest) -> Path:
    folder = Path(config.run.output)
    if world.is_first:
        claim(folder, config)
    if world.first(is_finished(folder)):
        reporter.say(f"the run in {folder} is finished; start it anew with --restart, or choose another run.output")
        return folder / MODEL
    footage = read_footage(config.data)
    outcome = run_steps(config, footage, world, reporter, started, stop)
    if outcome.ending == "asked":
        raise Stopped(f"stopped behind step {outcome.progress.step}; give the same command again to go on")
    if outcome.ending == "early":
        reporter.say(f"stopped early: the held-out loss was lowest at step {outcome.progress.best_step}")
    if world.is_first:
        finish(config, footage, reporter)
    return folder / MODEL


def run_steps(
    config: TrainConfig,
    footage: Footage,
    world: World,
    reporter: Reporter,
    started: float,
    stop: StopRequest,
) -> Outcome:
    """All of a run but what follows its last step; gives the memory back that it took."""
    model, tokenizer, base = load_base(config)
    if world.size == 1:
        model.to(world.device)
    if not world.is_first:
        world.barrier()  # the first worker looks at the footage, the others find what it saw
    feed = make_feed(config, model, prompt_of(model, tokenizer), footage, world, reporter, dtype=stored_dtype(base))
    if world.is_first:
        world.barrier()
    trainer = Trainer(
        config=config,
        world=world,
        model=distribute(SequenceModel(model), config, world),
        feed=feed,
        folder=Path(config.run.output) / CHECKPOINTS,
        reporter=reporter,
        should_stop=stop,
    )
    with stop:
        return trainer.run(started)


def finish(config: TrainConfig, footage: Footage, reporter: Reporter) -> None:
    """Exports the best checkpoint, or the last where nothing was held out, and sets its threshold; only then it is `model`."""
    folder = Path(config.run.output)
    best = best_checkpoint(folder / CHECKPOINTS)
    model, _, base = load_base(config)
    load_checkpoint(best, SequenceModel(model), None)
    partial = folder / (MODEL + PARTIAL)
    export(model, config, base, partial)
    del model
    reporter.say(f"step {step_of(best)} is the finished model")
    if config.run.calibrate == "none":
        tell_threshold(partial, "run.calibrate is none", reporter)
    elif not footage.holdout:
        tell_threshold(partial, "nothing was held out to set it on", reporter)
    else:
        set_threshold(partial, config, footage, reporter)
    try:
        publish(partial, folder / MODEL)
    except OSError as error:
        raise LiveStarError(
            f"{folder / MODEL} cannot be written ({error.strerror}); make room there and give the same command again"
        ) from error


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint of the lowest held-out loss, by the newest one that is sound; that one where there is no other."""
    for newest in reversed(list_checkpoints(folder)):
        try:
            wanted = check_checkpoint(newest).best_step
            for path in list_checkpoints(folder):
                if step_of(path) == wanted:
                    check_checkpoint(path)
                    return path
        except CheckpointFailed:
            continue
        return newest
    raise CheckpointFailed(f"{folder} holds no checkpoint that can be read; start the run anew with --restart")


def tell_threshold(directory: Path, why: str, reporter: Reporter) -> None:
    """Says which threshold a model has that was not set on footage."""
    own = load_model_config(directory).watch.get("threshold")
    threshold, source = (DEFAULT_THRESHOLD, "the default") if own is None else (own, "kept from the base")
    reporter.say(f"threshold {threshold:g} is {source}: {why}")


def set_threshold(directory: Path, config: TrainConfig, footage: Footage, reporter: Reporter) -> None:
    """Finds the threshold on the held-out footage and writes it into the model's config; never one below `MIN_THRESHOLD`.

    Where too little is held out to tell, the training footage is watched too, within `run.calibrate_videos`.
    """
    checkpoint = load_model_directory(directory)
    fps = frames_per_second(config.data, checkpoint.model)
    most = config.run.calibrate_videos
    videos = spread(footage.holdout, most)
    num_frames, num_boundaries = extent(videos, fps)
    behind = ""
    if num_frames < MIN_FRAMES or num_boundaries < MIN_BOUNDARIES:
        more = spread(tuple(dict.fromkeys(footage.train)), most - len(videos))  # data.repeats names some twice
        videos += more
        if more:
            behind = (
                f", training footage included, since what is held out has {num_frames:.0f} frames and {num_boundaries} "
                f"boundaries (fewer than {MIN_FRAMES} or {MIN_BOUNDARIES})"
            )
    shown = watched_footage(checkpoint, videos, fps)
    workers = share_cores(checkpoint.model, os.cpu_count() or 1)
    try:
        objective: Objective = "f1" if config.run.calibrate == "f1" else "rate"
        rate = annotated_rate((*footage.train, *footage.holdout), fps)
        found = calibrate(checkpoint, shown, response_rate=rate, objective=objective, num_workers=workers)
        threshold = max(MIN_THRESHOLD, found.threshold)
        write_threshold(directory, threshold)
    except LiveStarError as error:
        reporter.say(f"the threshold was not set: {error}")
        tell_threshold(directory, "none was set", reporter)
        return
    if threshold > found.threshold:
        behind += (
            f"; this with {found.threshold:.4f}, but one below {MIN_THRESHOLD:g} answers captions that fit better than before"
        )
    reporter.say(
        f"threshold {threshold:.4f} is set on held-out footage: it responds to {found.response_rate:.1%} of frames{behind}"
    )


def watched_footage(checkpoint: Checkpoint, videos: Sequence[AnnotatedVideo], fps: float) -> HeldOut:
    """The videos as the model sees them."""
    return HeldOut(videos, fps=fps, image_size=checkpoint.model.config.vision.image_size)


def spread(videos: Sequence[AnnotatedVideo], most: int) -> tuple[AnnotatedVideo, ...]:
    """At most so many of the videos, evenly spread."""
    return tuple(videos[:: -(-len(videos) // most)]) if videos and most > 0 else ()


def extent(videos: Sequence[AnnotatedVideo], fps: float) -> tuple[float, int]:
    """Frames of the videos together, and events that begin while watching."""
    seconds = sum(end_of(video) - video.begin_s for video in videos)
    return seconds * fps, sum(event.begin_s > video.begin_s for video in videos for event in video.events)


def annotated_rate(videos: Sequence[AnnotatedVideo], fps: float) -> float:
    """Events that begin while watching, per frame.  The footage held out may be too short to tell, so all of it is counted."""
    num_frames, num_events = extent(videos, fps)
    return min(0.99, num_events / max(1.0, num_frames))


def end_of(video: AnnotatedVideo) -> float:
    """Where an annotated video ends, in seconds, as far as its annotation says."""
    ends = (video.end_s, video.duration_s, max((event.end_s for event in video.events), default=0.0))
    return next(end for end in ends if end is not None)


def claim(folder: Path, config: TrainConfig) -> None:
    """Notes the config in the run's folder; refuses a folder that holds a run of other settings which came to a checkpoint."""
    path = folder / CONFIG
    values = absolute(config)
    fresh = path.with_name(CONFIG + PARTIAL)
    try:
        if path.exists():
            changed = _differences(_noted(path), json.loads(json.dumps(values.as_dict())))
            if changed and (list_checkpoints(folder / CHECKPOINTS) or is_finished(folder)):
                raise InvalidConfig(
                    f"{folder} holds a run with another {', '.join(changed)}; choose another run.output, or start it anew with "
                    "--restart"
                )
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(values.as_dict(), indent=2), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise LiveStarError(f"{folder} cannot be used for a run ({error.strerror}); choose another run.output") from error


def _noted(path: Path) -> object:
    """The config of the run that is there, as this version writes it."""
    try:
        return json.loads(json.dumps(absolute(parse_config(json.loads(path.read_text(encoding="utf-8")))).as_dict()))
    except (ValueError, TypeError) as error:  # InvalidConfig too: of a version with other settings
        raise InvalidConfig(
            f"{path} is not the config of a run of this version ({error}); choose another run.output, or delete that folder"
        ) from error


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


def _differences(old: object, new: object, prefix: str = "") -> list[str]:
    if prefix in MAY_CHANGE or old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [prefix or "config"]
    names = sorted(old.keys() | new.keys())
    return [d for name in names for d in _differences(old.get(name), new.get(name), f"{prefix}.{name}".lstrip("."))]


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its model."""
    return (folder / MODEL / "config.json").is_file()


def restart(folder: Path) -> None:
    """Forgets a run: removes its model, checkpoints and metrics, and nothing else; its config at last.

    Raises `InvalidConfig` for a folder that holds something else, and where a training goes on in it.
    """
    if not (folder / CONFIG).exists():
        return
    with locked(folder):
        _noted(folder / CONFIG)
        for name in (MODEL, MODEL + PARTIAL, ADAPTER, CHECKPOINTS, CURVES, "ray"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (METRICS, CONFIG):
            (folder / name).unlink(missing_ok=True)
