"""`livestar evaluate`.  What needs torch, numpy or av is imported inside, so that help and shell completion answer at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from livestar.config import DTypeName, GateConfig, GateName, SamplingConfig, StreamConfig
from livestar.errors import InvalidConfig
from livestar.evaluation.console import progress, report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from livestar.evaluation.calibration import Objective
    from livestar.evaluation.evaluation import Evaluation
    from livestar.evaluation.judge import Judge
    from livestar.evaluation.similarity import TextEmbedder

PolicyName = Literal["sved", "interval"]
BenchmarkName = Literal["omnistar", "streamingbench", "ovo"]

EXIT_FAILED = 1
"""A video could not be watched."""


def evaluate(
    annotations: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ANNOTATIONS", help="Annotated videos to watch: events, text or released JSONL."),
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
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest caption, in tokens. Default: the model's own, or 256.",
            show_default=False,
            rich_help_panel="What to say",
        ),
    ] = None,
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
    watching = {"--model": model, "--part": part, "--limit": limit, "--calibrate": calibrate, "--text-floors": text_floors}
    reporting = {"--html": html, "--judge": judge, "--text-floors": text_floors}
    if predictions is not None:
        _refuse(watching, "--predictions scores a file and runs no model")
    elif calibrate is not None:
        _refuse({"--output": output, **reporting}, "--calibrate only searches a threshold")
    elif benchmark not in (None, "omnistar"):
        _refuse({"--part": part, "--policy interval": policy == "interval", **reporting}, "this benchmark only asks questions")
    wish = None if calibrate is None else _calibration_wish(calibrate)
    interval_s = _positive("interval", interval) if policy == "interval" else None
    grader = _make_judge(judge, judge_model, judge_key_env, judge_prompts)
    if predictions is not None and truth is not None:
        evaluation = _evaluate_files(predictions, truth, fps=fps, similarity=similarity, seed=seed)
    else:
        if fps is not None:
            _positive("fps", fps)
        from livestar.evaluation import command

        request = command.ModelRequest(
            model=model,
            stream=StreamConfig(
                prompt=prompt,
                gate=GateConfig(name=gate, threshold=threshold, response_rate=response_rate),
                sampling=SamplingConfig(max_new_tokens=max_new_tokens),
            ),
            part=part,
            fps=fps,
            limit=limit,
            streams=streams,
            dtype=dtype,
            device=device,
            threads=threads,
        )
        num_missing = 0
        if benchmark_file is None or videos is None or benchmark is None:
            annotated = command.read_videos(annotations or [], limit)
        elif benchmark == "omnistar":
            annotated, num_missing = command.read_omnistar_videos(benchmark_file, videos, limit)
        else:
            command.ask_benchmark(request, benchmark, benchmark_file, videos, as_json=as_json, output=output)
            return
        if wish is not None:
            rate, objective = wish
            command.calibrate_videos(request, annotated, response_rate=rate, objective=objective, write=write, as_json=as_json)
            return
        evaluation = command.evaluate_videos(
            request,
            annotated,
            interval_s=interval_s,
            embedder=_make_embedder(similarity),
            likelihood=likelihood,
            text_floors=text_floors,
            seed=seed,
            num_missing=num_missing,
        )
    try:
        if grader is not None:
            with progress() as on_stage:
                evaluation.scores.update(grader.score(evaluation.runs, on_answer=on_stage("judging")))
    finally:  # a judge that fails costs no more than its own grades
        report(evaluation, as_json=as_json, output=output, html=html)
    if evaluation.failures:
        raise typer.Exit(EXIT_FAILED)


def _evaluate_files(predictions: Path, truth: Path, *, fps: float | None, similarity: bool | None, seed: int) -> Evaluation:
    from livestar.evaluation.evaluation import evaluate_runs
    from livestar.evaluation.predictions import load_runs

    runs = load_runs(predictions, truth, fps=_positive("fps", 1.0 if fps is None else fps))
    settings: dict[str, object] = {"predictions": str(predictions), "truth": str(truth), "seed": seed}
    return evaluate_runs(runs, settings=settings, embedder=_make_embedder(similarity), seed=seed)


def _make_judge(url: str | None, model: str | None, key_env: str, prompts: Path | None) -> Judge | None:
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise InvalidConfig("a judge needs an address and a model; give both --judge and --judge-model")
    from livestar.evaluation.judge import Judge, JudgeConfig, load_prompts

    return Judge(JudgeConfig(base_url=url, model=model), load_prompts(prompts), api_key=os.environ.get(key_env))


def _make_embedder(wanted: bool | None) -> TextEmbedder | None:
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


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Refuses options that would be ignored."""
    for name, value in options.items():
        if value not in (None, False):
            raise InvalidConfig(f"{why}; leave {name} out")


def _positive(name: str, value: float) -> float:
    if not 0.001 <= value <= 100_000:
        raise InvalidConfig(f"{name} is {value!r}; give a number above 0")
    return value


def _check_writable(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise InvalidConfig(f"{str(path)!r} is no file that can be written; choose another")
