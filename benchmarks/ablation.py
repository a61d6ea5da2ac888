"""Which mask should captions be trained with, and what should say when to speak?

    python -m benchmarks.ablation --data DIR [--minutes M | --steps N] [--set KEY=VALUE] [--model DIR] [--out DIR]

DIR holds scripted streams as `python -m training.mini scripted` draws them, in folders with an events.jsonl each.  Three
captioners are trained on them that differ in their mask alone (SCAM leaf, SCAM terminal, plain causal); then one captioner is
told when to speak in four ways (SVeD, an end-of-turn token, a fixed interval, chance).  What was trained stays in --work, and is
not trained again; a killed run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.ablation_contests import GATES, Streams, compare_captioner, compare_policies
from benchmarks.ablation_report import masks_dict, masks_text, timing_dict, timing_text, write
from benchmarks.ablation_training import TURN_WEIGHT, make_base, train_captioners
from benchmarks.ablation_watching import Trunk, Viewer
from benchmarks.report import RESULTS, machine
from livestar.annotations.read import read_annotations
from livestar.config import GateConfig
from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.footage import Footage
from livestar.evaluation.similarity import SentenceModel
from livestar.session import load_checkpoint, share_cores
from training.config import load_config
from training.export import stored_dtype
from training.features import FeatureCache
from training.prepare import frames_per_second

if TYPE_CHECKING:
    from collections.abc import Sequence

    from livestar.session import Checkpoint
    from training.config import TrainConfig

EVENTS = "events.jsonl"
RECIPE = "mini-follow"
"""Training follows livestar-mini's own config in all but masks, length and held-out streams."""
MIN_CONTEXT_FRAMES = 8
"""Frames that a stream's context has room for, however short the windows of training are."""
MAX_KEPT_BYTES = 2 * 2**30
"""Most bytes of one part's pictures in memory; they are shown some twenty times."""


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, watches, compares and reports."""
    args = _parser().parse_args(argv)
    try:
        run(args)
    except LiveStarError as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    """The whole ablation.  Raises `LiveStarError`."""
    embedder = SentenceModel()  # refused before anything is trained
    torch.set_num_threads(args.threads)
    files = [str(path) for name in args.train if (path := args.data / name / EVENTS).exists()]
    if not files:
        raise InvalidConfig(
            f"--data {args.data} has no {args.train[0]}/{EVENTS}; draw it with python -m training.mini scripted, or name another "
            "folder with --train"
        )
    base = args.base or args.work / "base"
    if not (base / "config.json").exists() and args.base is None:
        make_base(base, files, args.seed)
    config = _config(args, base, files)
    captioners = train_captioners(config, args.work)

    checkpoint = load_checkpoint(base, device="cpu")
    num_workers = share_cores(checkpoint.model, args.threads)
    trunk, streams = _prepare(args, config, checkpoint, embedder)

    def load(directory: Path) -> Checkpoint:
        loaded = load_checkpoint(directory, device="cpu")
        if not trunk.lend(loaded.model):
            Trunk(loaded.model).lend(loaded.model)
        return loaded

    def viewers(loaded: Checkpoint, gates: Sequence[GateConfig]) -> list[Viewer]:
        frames = args.context_frames or max(config.data.max_frames, MIN_CONTEXT_FRAMES)
        return [Viewer(checkpoint=loaded, gate=gate, max_frames=frames, num_workers=num_workers) for gate in gates]

    masks, others = [], []
    for captioner in captioners:
        own = viewers(load(captioner.directory), GATES[captioner.visibility])
        first, *rest = compare_captioner(captioner.visibility, own, streams)
        masks.append(first)
        others += rest
        if captioner.visibility == "leaf":
            leaf, leaf_runs = own[0], first.runs
    facts, text = _facts(args, config, streams), masks_text(captioners, masks, others, config.scam.turn_weight)
    values: dict[str, object] = {"masks": masks_dict(captioners, masks, others)}
    write(args.out, args.name, facts, text, values)  # the second part takes long again, and may be stopped
    if args.model is None:
        name = f"the leaf captioner of the first part, trained with turn weight {config.scam.turn_weight:g}"
        timing = compare_policies(leaf, streams, leaf_runs)
    else:
        name = f"`{'/'.join(args.model.parts[-2:])}`, given with --model"
        timing = compare_policies(viewers(load(args.model), [GateConfig(name="scam", keep_captions=False)])[0], streams)

    text = f"{text}\n\n{timing_text(timing, name)}"
    write(args.out, args.name, facts, text, {**values, "timing": timing_dict(timing)})


def _config(args: argparse.Namespace, base: Path, files: Sequence[str]) -> TrainConfig:
    recipe = load_config(RECIPE, args.set)
    limits = {"max_steps": args.steps, "max_minutes": 0.0} if args.steps else {"max_steps": 0, "max_minutes": args.minutes}
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, base=str(base)),
        data=dataclasses.replace(
            recipe.data,
            files=tuple(files),
            repeats=recipe.data.repeats if len(recipe.data.repeats) == len(files) else (),
            holdout_files=(str(args.data / args.validation / EVENTS),),
            cache=str(args.cache or args.work / "cache"),
        ),
        scam=dataclasses.replace(recipe.scam, layout="inference", turn_weight=recipe.scam.turn_weight or TURN_WEIGHT),
        optim=dataclasses.replace(recipe.optim, seed=args.seed, **limits),
        run=dataclasses.replace(recipe.run, evaluate_every=0, patience=0),
    )


def _prepare(
    args: argparse.Namespace, config: TrainConfig, checkpoint: Checkpoint, embedder: SentenceModel
) -> tuple[Trunk, Streams]:
    """The streams to watch, and the trunk that has looked at them."""
    model = checkpoint.model
    fps = frames_per_second(config.data, model)
    precision: torch.dtype = getattr(torch, config.model.precision)
    cache = FeatureCache(
        Path(config.data.cache), model, fps=fps, dtype=stored_dtype(Path(config.model.base)), precision=precision
    )
    trunk = Trunk(model)

    def footage(name: str, most: int | None) -> Footage:
        videos = read_annotations(args.data / name / EVENTS)[:most]
        shown = Footage(videos, fps=fps, image_size=model.config.vision.image_size, max_kept_bytes=MAX_KEPT_BYTES)
        trunk.learn(shown, cache)
        return shown

    validation, heldout = footage(args.validation, args.validation_videos), footage(args.heldout, args.videos)
    return trunk, Streams(validation=validation, heldout=heldout, embedder=embedder, seed=args.seed)


def _facts(args: argparse.Namespace, config: TrainConfig, streams: Streams) -> dict[str, object]:
    module = sys.modules["__main__"].__spec__
    videos = streams.heldout.videos
    return {
        "command": "`" + shlex.join(["python", "-m", module.name if module else "benchmarks.ablation", *sys.argv[1:]]) + "`",
        "machine": machine(),
        "seed": args.seed,
        "base": f"`{'/'.join(args.base.parts[-2:])}`, given with --base, the same for all masks"
        if args.base
        else "an untrained livestar-mini",
        "recipe": f"training/configs/{RECIPE}.toml, at most {config.data.max_frames} frames and {config.optim.max_batch_tokens} "
        f"rows a step, {config.data.max_copies or 'all'} copies of a caption per clip",
        "training_videos": sum(len(read_annotations(Path(file))) for file in config.data.files),
        "validation_videos": len(streams.validation.videos),
        "heldout_videos": f"{len(videos)}, with {sum(len(video.events) for video in videos)} events",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train, validation, heldout = ["scripted-train", "scripted-calm"], "scripted-calm-val", "scripted-calm-heldout"
    parser.add_argument("--data", type=Path, required=True, help="folder of the streams' folders")
    parser.add_argument("--train", nargs="+", default=train, help="folders to train on; those that are there are taken")
    parser.add_argument("--validation", default=validation, help="folder to set thresholds on")
    parser.add_argument("--heldout", default=heldout, help="folder to score")
    parser.add_argument(
        "--base", type=Path, help="checkpoint to start from, such as mini-look's; an untrained livestar-mini if not given"
    )
    parser.add_argument("--set", action="append", default=[], help=f"another value for a key of {RECIPE}.toml")
    parser.add_argument("--context-frames", type=int, help="frames in a stream's context; those of training if not given")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time to train the first captioner; the others take as many steps"
    )
    parser.add_argument("--steps", type=int, default=0, help="steps of every captioner, whatever time they take")
    parser.add_argument("--model", type=Path, help="captioner of the second part, trained with scam.turn_weight above 0")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the report")
    parser.add_argument("--name", default="ablation", help="name of the report's files")
    parser.add_argument("--work", type=Path, default=Path("build/ablation"), help="folder for what is trained")
    parser.add_argument("--cache", type=Path, help="folder of visual tokens; in --work if not given")
    parser.add_argument("--videos", type=int, help="held-out streams to watch; all if not given")
    parser.add_argument("--validation-videos", type=int, help="validation streams to set thresholds on; all if not given")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU cores to use")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data order and random speech")
    return parser


if __name__ == "__main__":
    main()
