"""`livestar evaluate`.  What needs torch, numpy or av is imported inside, so that help and shell completion answer at once."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from livestar.config import DTypeName, GateConfig, GateName, SamplingConfig, StreamConfig
from livestar.errors import InvalidConfig, LiveStarError
from livestar.view import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from livestar.annotations.types import AnnotatedVideo
    from livestar.evaluation.benchmarks.run import QuestionBenchmark
    from livestar.evaluation.calibration import Objective
    from livestar.evaluation.evaluation import Evaluation
    from livestar.evaluation.footage import Footage
    from livestar.evaluation.similarity import TextEmbedder
    from livestar.session import Checkpoint

PolicyName = Literal["sved", "interval"]
BenchmarkName = Literal["omnistar", "streamingbench", "ovo"]

EXIT_FAILED = 1

out = Console()
err = Console(stderr=True)


def evaluate(
    annotations: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ANNOTATIONS]...", help="Annotated videos to watch: events, text or released JSONL."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Directory of a checkpoint. Default: the packaged livestar-mini.", show_default=False)
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Part of each video: shares such as 0.6:1, or seconds such as 30s:60s.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames to look at per second. Default: the model's own, or 1.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first so many videos.", show_default=False)] = None,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Videos to watch at a time, in one batch.")] = 8,
    policy: Annotated[
        PolicyName,
        typer.Option(
            help="sved: the model's own gate; interval: speak every --interval seconds.", rich_help_panel="When to speak"
        ),
    ] = "sved",
    interval: Annotated[
        float, typer.Option(help="Seconds between responses of --policy interval.", rich_help_panel="When to speak")
    ] = 4.0,
    gate: Annotated[
        GateName | None,
        typer.Option(help="How a caption is verified. Default: the model's own.", rich_help_panel="When to speak"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Speak above this ratio. Default: the model's own, or 1.03.", rich_help_panel="When to speak"),
    ] = None,
    response_rate: Annotated[
        float | None,
        typer.Option(
            help="Instead of a threshold: share of frames; calibrates itself on the way.", rich_help_panel="When to speak"
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Only search a threshold: a response rate such as 0.15, 'truth' for the truth's own rate, 'f1' for the best F1.",
            rich_help_panel="When to speak",
        ),
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write the calibrated threshold into the model's config.", rich_help_panel="When to speak"),
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Longest caption, in tokens.", rich_help_panel="What to say")] = 256,
    prompt: Annotated[
        str | None, typer.Option(help="Task for the model. Default: the model's own.", rich_help_panel="What to say")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Score this file instead of running a model: JSONL.", rich_help_panel="Score files", show_default=False
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="What --predictions are scored against.", rich_help_panel="Score files", show_default=False),
    ] = None,
    similarity: Annotated[
        bool | None,
        typer.Option(
            help="Semantic similarity by a sentence model. Default: if it is installed.",
            rich_help_panel="Metrics",
            show_default=False,
        ),
    ] = None,
    likelihood: Annotated[
        bool, typer.Option(help="Perplexity and token accuracy of the truth, a further pass.", rich_help_panel="Metrics")
    ] = True,
    text_floors: Annotated[
        bool,
        typer.Option(
            "--text-floors",
            help="Watch twice more: the same captioner at an even interval and on random frames, at the same rate.",
            rich_help_panel="Metrics",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random floors.", rich_help_panel="Metrics")] = 0,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="OpenAI-compatible endpoint that grades SemCor and SumFluen, such as http://localhost:8000/v1.",
            rich_help_panel="Judge",
            show_default=False,
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Name of the judge's model.", rich_help_panel="Judge", show_default=False)
    ] = None,
    judge_key_env: Annotated[
        str,
        typer.Option(metavar="NAME", help="Environment variable that holds its key, if it needs one.", rich_help_panel="Judge"),
    ] = "OPENAI_API_KEY",
    judge_prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with sem_cor.txt and sum_fluen.txt in place of the packaged prompts.",
            rich_help_panel="Judge",
            show_default=False,
        ),
    ] = None,
    benchmark: Annotated[
        BenchmarkName | None,
        typer.Option(help="Read --annotations as a benchmark: omnistar, streamingbench or ovo.", rich_help_panel="Benchmarks"),
    ] = None,
    benchmark_file: Annotated[
        Path | None,
        typer.Option("--annotations", help="The benchmark's annotation file.", rich_help_panel="Benchmarks", show_default=False),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the benchmark's videos.", rich_help_panel="Benchmarks", show_default=False),
    ] = None,
    dtype: Annotated[DTypeName, typer.Option(help="Number format of weights and cache.", rich_help_panel="Where")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...", rich_help_panel="Where")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU cores to use. Default: all of them.", rich_help_panel="Where", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.", rich_help_panel="Reports")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Write all details as JSON to this file.", rich_help_panel="Reports", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with a timeline of every video.", rich_help_panel="Reports", show_default=False),
    ] = None,
) -> None:
    """Say how well a model knows what to say and when, beside policies that know nothing of the content.

    Watch annotated videos:  livestar evaluate room.events.jsonl --model my-model --part 0.6:1 --html report.html

    Score predictions:  livestar evaluate --predictions said.jsonl --truth truth.txt --json

    Exit status: 0; 1 when a video could not be watched, or a report not be written; 2 when the request could not be met.
    """
    _check_mode(annotations or [], predictions, truth, benchmark, benchmark_file, videos)
    for path in (output, html):
        _check_writable(path)
    if write and calibrate is None:
        raise InvalidConfig("--write writes a calibrated threshold; give --calibrate as well")
    wish = None if calibrate is None else _calibration_wish(calibrate)
    interval_s = _positive("interval", interval) if policy == "interval" else None
    grader = None
    if judge is not None or judge_model is not None:
        from livestar.evaluation.judge import Judge, JudgeConfig, load_prompts

        if judge is None or judge_model is None:
            raise InvalidConfig("a judge needs an address and a model; give both --judge and --judge-model")
        config = JudgeConfig(base_url=judge, model=judge_model)
        grader = Judge(config, load_prompts(judge_prompts), api_key=os.environ.get(judge_key_env))
    is_narration = calibrate is None and benchmark in (None, "omnistar")
    embedder = _embedder(similarity) if is_narration else None
    if predictions is not None and truth is not None:
        from livestar.evaluation.evaluation import evaluate_runs
        from livestar.evaluation.predictions import load_runs

        runs = load_runs(predictions, truth, fps=_positive("fps", 1.0 if fps is None else fps))
        settings: dict[str, object] = {"predictions": str(predictions), "truth": str(truth), "seed": seed}
        evaluation = evaluate_runs(runs, settings=settings, embedder=embedder, seed=seed)
    else:
        stream = StreamConfig(
            prompt=prompt,
            gate=GateConfig(name=gate, threshold=threshold, response_rate=response_rate),
            sampling=SamplingConfig(max_new_tokens=max_new_tokens),
        )
        watcher = _Watcher(model, stream, part=part, fps=fps, limit=limit, streams=streams)
        if benchmark is not None and benchmark_file is not None and videos is not None and benchmark != "omnistar":
            where = (device, dtype, threads)
            watcher.run_benchmark(benchmark, benchmark_file, videos, where, as_json=as_json, output=output)
            return
        annotated = watcher.read(annotations or [], benchmark_file, videos)
        with watcher.opened(annotated, dtype=dtype, device=device, threads=threads) as (checkpoint, footage, num_workers):
            if wish is not None:
                watcher.calibrate(checkpoint, footage, num_workers, wish, write=write, as_json=as_json)
                return
            evaluation = watcher.evaluate(
                checkpoint,
                footage,
                num_workers,
                interval_s=interval_s,
                embedder=embedder,
                likelihood=likelihood,
                text_floors=text_floors,
                seed=seed,
            )
    if grader is not None:
        with _progress() as on_stage:
            evaluation.scores.update(grader.score(evaluation.runs, on_answer=on_stage("judging")))
    _report(evaluation, as_json=as_json, output=output, html=html)
    if evaluation.failures:
        raise typer.Exit(EXIT_FAILED)


class _Watcher:
    """Runs a model over annotated videos, with what was asked for on the command line."""

    def __init__(
        self,
        model: Path | None,
        stream: StreamConfig,
        *,
        part: str | None,
        fps: float | None,
        limit: int | None,
        streams: int,
    ) -> None:
        from livestar.annotations.part import parse_part
        from livestar.model.mini import model_directory

        self._model = model_directory(model)
        self._stream = stream
        self._part_text = part
        self._part = None if part is None else parse_part(part)
        self._fps = None if fps is None else _positive("fps", fps)
        self._limit = limit
        self._streams = streams
        self._num_missing = 0

    def read(self, files: list[Path], benchmark_file: Path | None, videos: Path | None) -> list[AnnotatedVideo]:
        """The annotated videos, of which each is there."""
        if benchmark_file is not None and videos is not None:
            from livestar.evaluation.benchmarks.omnistar import read_omnistar

            found = read_omnistar(benchmark_file, videos)
            if found.num_missing:
                err.print(
                    Text(f"note: {found.num_missing} videos are not in {videos} and are left out", style="yellow"), soft_wrap=True
                )
            self._num_missing = found.num_missing
            return list(found.videos)[: self._limit]
        from livestar.annotations.read import read_annotations

        return [video for file in files for video in read_annotations(file)][: self._limit]

    @contextlib.contextmanager
    def opened(
        self, videos: list[AnnotatedVideo], *, dtype: DTypeName, device: str, threads: int | None
    ) -> Iterator[tuple[Checkpoint, Footage, int]]:
        """The model and the footage, checked as far as can be before any weight is read."""
        from livestar.evaluation.footage import Footage, take_part

        if self._part is not None:
            videos = [take_part(video, self._part) for video in videos]
        checkpoint, num_workers = self._load(dtype=dtype, device=device, threads=threads)
        rate = self._fps or own_fps(checkpoint)
        yield checkpoint, Footage(videos, fps=rate, image_size=checkpoint.model.config.vision.image_size), num_workers

    def _load(self, *, dtype: DTypeName, device: str, threads: int | None) -> tuple[Checkpoint, int]:
        from livestar.session import check_request, load_checkpoint, share_cores

        check_request(self._model, self._stream)
        checkpoint = load_checkpoint(self._model, dtype=dtype, device=device)
        note = checkpoint.model.config.watch.get("note")
        if note is not None:
            err.print(Text(f"note: {printable(str(note))}", style="yellow"), soft_wrap=True)
        return checkpoint, share_cores(checkpoint.model, threads or os.cpu_count() or 1)

    def evaluate(
        self,
        checkpoint: Checkpoint,
        footage: Footage,
        num_workers: int,
        *,
        interval_s: float | None,
        embedder: TextEmbedder | None,
        likelihood: bool,
        text_floors: bool,
        seed: int,
    ) -> Evaluation:
        """Watches and scores."""
        from livestar.evaluation.model_evaluation import evaluate_model
        from livestar.evaluation.policies import Interval

        settings: dict[str, object] = {
            "model": str(self._model),
            "policy": "sved" if interval_s is None else "interval",
            "interval_s": interval_s,
            "gate": self._gate(checkpoint).name,
            "threshold": self._gate(checkpoint).threshold,
            "response_rate": self._stream.gate.response_rate,
            "fps": footage.fps,
            "part": self._part_text,
            "num_missing_videos": self._num_missing,
            "seed": seed,
        }
        with _progress() as on_stage:
            evaluation = evaluate_model(
                checkpoint,
                footage,
                None if interval_s is None else Interval(interval_s),
                settings=settings,
                stream=self._stream,
                num_streams=self._streams,
                num_workers=num_workers,
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

    def calibrate(
        self,
        checkpoint: Checkpoint,
        footage: Footage,
        num_workers: int,
        wish: tuple[float | None, Objective],
        *,
        write: bool,
        as_json: bool,
    ) -> None:
        """Searches a threshold, prints it, and writes it where that is asked for."""
        from livestar.evaluation.calibration import calibrate, is_packaged, write_threshold

        if write and is_packaged(self._model):
            raise InvalidConfig("--write would change the packaged model; copy it and give the copy with --model")
        rate, objective = wish
        with _progress() as on_stage:
            found = calibrate(
                checkpoint,
                footage,
                response_rate=rate,
                objective=objective,
                stream=self._stream,
                num_streams=self._streams,
                num_workers=num_workers,
                on_frame=on_stage("calibrating"),
            )
        if write:
            write_threshold(self._model, found.threshold, self._gate(checkpoint).name)
        record: dict[str, object] = {
            "threshold": round(found.threshold, 6),
            "response_rate": found.response_rate,
            "wanted_rate": found.wanted_rate,
            "boundary_f1": found.boundary_f1,
            "num_trials": len(found.trials),
            "written": write,
        }
        if as_json:
            _print_json(record)
            return
        out.print(
            f"threshold {found.threshold:.4f}: responds to {found.response_rate:.1%} of the frames "
            f"(wanted {found.wanted_rate:.1%}), mean boundary F1 {found.boundary_f1:.3f}, after {len(found.trials)} trials",
            highlight=False,
        )
        if write:
            out.print(Text(printable(f"written to {self._model / 'config.json'}")), soft_wrap=True)

    def run_benchmark(
        self,
        name: QuestionBenchmark,
        file: Path,
        videos: Path,
        where: tuple[str, DTypeName, int | None],
        *,
        as_json: bool,
        output: Path | None,
    ) -> None:
        """Answers a benchmark's questions where its videos are there."""
        from livestar.evaluation.benchmarks.run import answer_benchmark, make_benchmark_table, read_benchmark

        tasks = read_benchmark(name, file, videos, limit=self._limit)
        device, dtype, threads = where
        checkpoint, _ = self._load(dtype=dtype, device=device, threads=threads)
        with _progress() as on_stage:
            scores = answer_benchmark(
                checkpoint,
                tasks,
                fps=self._fps or own_fps(checkpoint),
                stream=self._stream,
                on_answer=on_stage("answering"),
            )
        if output is not None:
            _write_text(output, json.dumps(scores, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
        if as_json:
            _print_json({key: value for key, value in scores.items() if key != "answers"})
            return
        out.print(make_benchmark_table(scores))

    def _gate(self, checkpoint: Checkpoint) -> GateConfig:
        from livestar.engine.admission import DEFAULT_GATE, resolve_gate

        gate = resolve_gate(self._stream.gate, checkpoint.model.config.watch)
        return GateConfig(name=gate.name or DEFAULT_GATE, threshold=gate.threshold, response_rate=None)


def own_fps(checkpoint: Checkpoint) -> float:
    """Frames per second that a model was made for; 1 where it does not say."""
    value = checkpoint.model.config.watch.get("fps")
    is_rate = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if is_rate else 1.0  # type: ignore[arg-type]  # just checked


def _embedder(wanted: bool | None) -> TextEmbedder | None:
    if wanted is False:
        return None
    from livestar.evaluation.similarity import SentenceModel, is_installed

    return SentenceModel() if wanted or is_installed() else None


def _calibration_wish(text: str) -> tuple[float | None, Objective]:
    """The response rate to calibrate to, None for the truth's own, and what to find the best of."""
    if text in ("truth", "f1"):
        return None, "f1" if text == "f1" else "rate"
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise InvalidConfig(f"calibrate is {text!r}; give a response rate between 0 and 1, 'truth', or 'f1'")
    return rate, "rate"


def _check_mode(
    annotations: list[Path],
    predictions: Path | None,
    truth: Path | None,
    benchmark: str | None,
    benchmark_file: Path | None,
    videos: Path | None,
) -> None:
    """Refuses requests that ask for two things, or for half of one."""
    if (predictions is None) != (truth is None):
        raise InvalidConfig("give both --predictions and --truth, or neither")
    if (benchmark is None) != (benchmark_file is None) or (benchmark is None) != (videos is None):
        raise InvalidConfig("a benchmark needs --benchmark, --annotations and --videos together")
    num_modes = sum((bool(annotations), predictions is not None, benchmark is not None))
    if num_modes == 0:
        raise InvalidConfig("there is nothing to evaluate; give annotation files, or --predictions and --truth")
    if num_modes > 1:
        raise InvalidConfig("give annotation files, or --predictions with --truth, or a benchmark, not several of them")


def _positive(name: str, value: float) -> float:
    if not 0.001 <= value <= 100_000:
        raise InvalidConfig(f"{name} is {value!r}; give a number above 0")
    return value


def _check_writable(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise InvalidConfig(f"{str(path)!r} is no file that can be written; choose another")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[], None] | None]]:
    """Shows in a terminal what is being done, and how many frames it took so far."""
    if not err.is_terminal:
        yield lambda stage: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:

        def on_stage(stage: str) -> Callable[[], None]:
            task = progress.add_task(stage, total=None)
            return lambda: progress.advance(task)

        yield on_stage


def _report(evaluation: Evaluation, *, as_json: bool, output: Path | None, html: Path | None) -> None:
    if output is not None:
        _write_text(output, json.dumps(evaluation.details(), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    if html is not None:
        from livestar.evaluation.report import render

        _write_text(html, render(evaluation))
    if as_json:
        _print_json(evaluation.summary())
        return
    from livestar.evaluation.table import make_tables

    for table in make_tables(evaluation):
        out.print(table)
    for failure in evaluation.failures:
        err.print(Text(printable(f"failed: {failure.name}: {failure.error}"), style="red"), soft_wrap=True)


def _print_json(record: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LiveStarError(f"{path} cannot be written ({error.strerror}); free some space or choose another file") from error
