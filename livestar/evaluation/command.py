"""What `livestar evaluate` does with a model."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text

from livestar.annotations.duration import measure_duration
from livestar.annotations.part import parse_part
from livestar.annotations.read import read_annotations
from livestar.config import MediaConfig
from livestar.engine.admission import DEFAULT_GATE, resolve_gate
from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.benchmarks.omnistar import read_omnistar
from livestar.evaluation.benchmarks.run import answer_benchmark, make_benchmark_table, read_benchmark
from livestar.evaluation.calibration import calibrate, check_gate, is_packaged, write_threshold
from livestar.evaluation.console import note, out, print_json, progress, write_json
from livestar.evaluation.footage import Footage, take_part
from livestar.evaluation.model_evaluation import evaluate_model
from livestar.evaluation.policies import Interval
from livestar.evaluation.table import counted
from livestar.gate.threshold import DEFAULT_THRESHOLD
from livestar.model.config import load_config
from livestar.model.mini import model_directory
from livestar.session import check_request, load_checkpoint, share_cores
from livestar.view import printable

if TYPE_CHECKING:
    from pathlib import Path

    from livestar.annotations.types import AnnotatedVideo
    from livestar.config import DTypeName, StreamConfig
    from livestar.evaluation.benchmarks.run import QuestionBenchmark
    from livestar.evaluation.calibration import Objective
    from livestar.evaluation.evaluation import Evaluation
    from livestar.evaluation.similarity import TextEmbedder
    from livestar.session import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """A model, and how to watch with it."""

    model: Path | None
    """None is the packaged one."""
    stream: StreamConfig
    part: str | None = None
    fps: float | None = None
    limit: int | None = None
    streams: int = 8
    dtype: DTypeName = "auto"
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.part is not None:
            parse_part(self.part)

    @property
    def directory(self) -> Path:
        """The checkpoint's directory.  Raises `InvalidConfig` where the packaged model is asked for and not there."""
        return model_directory(self.model)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A loaded model, and workers for its engine."""

    checkpoint: Checkpoint
    num_workers: int


def evaluate_videos(
    request: ModelRequest,
    videos: list[AnnotatedVideo],
    *,
    interval_s: float | None,
    embedder: TextEmbedder | None,
    likelihood: bool,
    text_floors: bool,
    seed: int,
    num_missing: int = 0,
) -> Evaluation:
    """Watches and scores; with `interval_s` it speaks by the clock.  Raises `LiveStarError` where all videos fail."""
    videos = _cut(request, videos)
    opened = _open(request)
    footage = _footage(request, opened, videos)
    settings = {
        **_settings(request, opened, footage.fps),
        "policy": "sved" if interval_s is None else "interval",
        "interval_s": interval_s,
        "num_missing_videos": num_missing,
        "seed": seed,
    }
    with progress(_num_frames(footage)) as on_stage:
        evaluation = evaluate_model(
            opened.checkpoint,
            footage,
            None if interval_s is None else Interval(interval_s),
            settings=settings,
            stream=request.stream,
            num_streams=request.streams,
            num_workers=opened.num_workers,
            embedder=embedder,
            likelihood=likelihood,
            text_floors=text_floors,
            seed=seed,
            on_stage=on_stage,
        )
    if not evaluation.runs:
        failure = evaluation.failures[0]
        raise LiveStarError(f"no video could be watched; the first, {failure.name}: {failure.error}")
    return evaluation


def calibrate_videos(
    request: ModelRequest,
    videos: list[AnnotatedVideo],
    *,
    response_rate: float | None,
    objective: Objective,
    write: bool,
    as_json: bool,
) -> None:
    """Searches a threshold, prints it, and writes it into the model's config where that is asked for."""
    if write and is_packaged(request.directory):
        raise InvalidConfig("--write would change the packaged model; copy it and give the copy with --model")
    gate = resolve_gate(request.stream.gate, load_config(request.directory).watch).name or DEFAULT_GATE
    if write:
        check_gate(request.directory, gate)
    videos = _cut(request, videos)
    opened = _open(request)
    footage = _footage(request, opened, videos)
    if response_rate is not None:
        _check_rate(response_rate, footage)
    with progress() as on_stage:
        found = calibrate(
            opened.checkpoint,
            footage,
            response_rate=response_rate,
            objective=objective,
            stream=request.stream,
            num_streams=request.streams,
            num_workers=opened.num_workers,
            on_frame=on_stage("calibrating"),
        )
    if write:
        write_threshold(request.directory, found.threshold, gate)
    if as_json:
        print_json(
            {
                "threshold": round(found.threshold, 6),
                "response_rate": found.response_rate,
                "wanted_rate": found.wanted_rate,
                "boundary_f1": found.boundary_f1,
                "num_trials": len(found.trials),
                "written": write,
            }
        )
        return
    out.print(
        f"threshold {found.threshold:.4f}: responds to {found.response_rate:.1%} of the frames "
        f"(wanted {found.wanted_rate:.1%}), mean boundary F1 {found.boundary_f1:.3f}, "
        f"after {counted(len(found.trials), 'trial')}",
        highlight=False,
    )
    if write:
        out.print(Text(printable(f"written to {request.directory / 'config.json'}")), soft_wrap=True)


def ask_benchmark(
    request: ModelRequest, name: QuestionBenchmark, file: Path, videos: Path, *, as_json: bool, output: Path | None
) -> None:
    """Answers a benchmark's questions where its videos are there."""
    tasks = read_benchmark(name, file, videos, limit=request.limit)
    opened = _open(request)
    fps = request.fps or opened.checkpoint.model.config.fps or MediaConfig().fps
    with progress(len(tasks.questions)) as on_stage:
        scores = answer_benchmark(opened.checkpoint, tasks, fps=fps, stream=request.stream, on_answer=on_stage("answering"))
    scores["settings"] = _settings(request, opened, fps)
    if output is not None:
        write_json(output, scores)
    if as_json:
        print_json({key: value for key, value in scores.items() if key != "answers"})
    else:
        out.print(make_benchmark_table(scores))


def read_videos(files: list[Path], limit: int | None) -> list[AnnotatedVideo]:
    """The videos of annotation files."""
    return [video for file in files for video in read_annotations(file)][:limit]


def read_omnistar_videos(file: Path, videos: Path, limit: int | None) -> tuple[list[AnnotatedVideo], int]:
    """The videos of OmniStar-RNG that are there, and how many are not."""
    found = read_omnistar(file, videos)
    if found.num_missing:
        note(f"left out, since not in {videos}: {counted(found.num_missing, 'video')}")
    return list(found.videos)[:limit], found.num_missing


def _cut(request: ModelRequest, videos: list[AnnotatedVideo]) -> list[AnnotatedVideo]:
    """The parts to watch.  Raises `InvalidConfig` where none of them has an event."""
    if request.part is None:
        return videos
    part = parse_part(request.part)
    cut = [take_part(video, part) for video in videos]
    if not any(video.events for video in cut):
        raise InvalidConfig(f"no event lies in the part {request.part} of any video; choose another --part, or leave it out")
    return cut


def _check_rate(rate: float, footage: Footage) -> None:
    """Raises `InvalidConfig` for a rate that comes to less than one response, first frames left out."""
    num_frames = 0
    for video in footage.videos:
        end_s = video.end_s
        if end_s is None:
            end_s = measure_duration(video.source, fps=video.fps) if video.duration_s is None else video.duration_s
        num_frames += max(0, math.ceil((end_s - video.begin_s) * footage.fps) - 1)
    if rate * num_frames < 1 - 1e-9:
        raise InvalidConfig(
            f"calibrate is {rate:g}, which is less than one response in all {counted(num_frames, 'frame')}; "
            + (f"give at least {math.ceil(1e4 / num_frames) / 1e4:g}, or more footage" if num_frames > 1 else "give more footage")
        )


def _open(request: ModelRequest) -> _Opened:
    """Loads the model, checked as far as can be before any weight is read."""
    check_request(request.directory, request.stream)
    checkpoint = load_checkpoint(request.directory, dtype=request.dtype, device=request.device)
    remark = checkpoint.model.config.watch.get("note")
    if remark is not None:
        note(str(remark))
    return _Opened(checkpoint, share_cores(checkpoint.model, request.threads or os.cpu_count() or 1))


def _footage(request: ModelRequest, opened: _Opened, videos: list[AnnotatedVideo]) -> Footage:
    fps = request.fps or opened.checkpoint.model.config.fps or MediaConfig().fps
    return Footage(videos, fps=fps, image_size=opened.checkpoint.model.config.vision.image_size)


def _num_frames(footage: Footage) -> int | None:
    """About how many frames there are to watch, where every video's length is known."""
    ends = [video.duration_s if video.end_s is None else video.end_s for video in footage.videos]
    lengths = [end_s - video.begin_s for end_s, video in zip(ends, footage.videos, strict=True) if end_s is not None]
    return None if len(lengths) < len(ends) else math.ceil(sum(lengths) * footage.fps)


def _settings(request: ModelRequest, opened: _Opened, fps: float) -> dict[str, object]:
    gate = resolve_gate(request.stream.gate, opened.checkpoint.model.config.watch)
    if gate.threshold is None and gate.response_rate is None:
        gate = replace(gate, threshold=DEFAULT_THRESHOLD)
    return {
        "model": str(request.directory),
        "gate": gate.name or DEFAULT_GATE,
        "threshold": gate.threshold,
        "response_rate": gate.response_rate,
        "fps": fps,
        "part": request.part,
        "max_new_tokens": request.stream.sampling.max_new_tokens,
    }
