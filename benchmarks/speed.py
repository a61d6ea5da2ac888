"""How much faster is the engine than the released algorithm, and 16 streams together than one?

    python -m benchmarks.speed [--model DIR] [--frames 60] [--streams 16]

Everything is measured in one process on the same frames and weights, and reported as ratios.  The rounds of the contestants
alternate and the median round counts, since other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from benchmarks.footage import load_footage
from benchmarks.report import publish
from livestar.config import EngineConfig, GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import make_prompt
from livestar.engine.engine import Engine
from livestar.model.demo import write_demo_checkpoint
from livestar.reference import ReleasedLoop
from livestar.session import Checkpoint, load_checkpoint, share_cores
from livestar.types import CaptionDone, Frame, StreamId, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from livestar.config import GateName

    Images = Sequence[NDArray[np.uint8]]

THRESHOLD = 1.03
LAST = 10
"""Frames at the end of a run over which the speed at full context is taken."""


class Run(NamedTuple):
    """One contestant's round."""

    seconds: float
    last_seconds: float
    """Spent on the last `LAST` frames of the first stream."""
    captions: list[str]
    """Of the first stream."""


def released(checkpoint: Checkpoint, images: Images, max_new_tokens: int) -> Run:
    """The released loop over `images`."""
    prompt = make_prompt(checkpoint.model.config, checkpoint.tokenizer)
    loop = ReleasedLoop(checkpoint.model, prompt, threshold=THRESHOLD, max_new_tokens=max_new_tokens)
    times, captions = [time.perf_counter()], []
    for image in images:
        caption = loop.watch(torch.from_numpy(image)).caption
        times.append(time.perf_counter())
        captions += [caption] if caption is not None else []
    return Run(times[-1] - times[0], times[-1] - times[-1 - LAST], captions)


def engine(checkpoint: Checkpoint, videos: Sequence[Images], gate: GateName, max_new_tokens: int, num_workers: int = 1) -> Run:
    """One engine with a stream for each of `videos`."""
    config = StreamConfig(
        gate=GateConfig(name=gate, threshold=THRESHOLD),
        retention=RetentionConfig(name="none"),
        sampling=SamplingConfig(max_new_tokens=max_new_tokens),
    )
    watcher = Engine(
        checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=10000 * len(videos), num_workers=num_workers)
    )
    waiting = {StreamId(f"s{i}"): deque(enumerate(images, 1)) for i, images in enumerate(videos)}
    for stream_id in waiting:
        watcher.open(stream_id, config)
    captions: list[str] = []
    times = [time.perf_counter()]
    while watcher.has_work or any(waiting.values()):
        for stream_id, frames in waiting.items():
            if frames and watcher.can_push(stream_id):
                number, image = frames.popleft()
                watcher.push(stream_id, Frame(number, float(number), image))
        for event in watcher.step():
            if event.stream_id == "s0":
                captions += [event.text] if isinstance(event, CaptionDone) else []
                times += [time.perf_counter()] if isinstance(event, Verdict) else []
    seconds = time.perf_counter() - times[0]
    watcher.shut_down()
    return Run(seconds, times[-1] - times[-1 - LAST], captions)


def one_by_one(checkpoint: Checkpoint, videos: Sequence[Images], gate: GateName, max_new_tokens: int) -> Run:
    """The same streams, each alone in an engine of its own, one after the other."""
    runs = [engine(checkpoint, [images], gate, max_new_tokens) for images in videos]
    return runs[0]._replace(seconds=sum(run.seconds for run in runs))


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory; the demo checkpoint if not given")
    parser.add_argument("--frames", type=int, default=60, help="frames of each stream")
    parser.add_argument("--streams", type=int, default=16, help="streams in the shared engine")
    parser.add_argument("--max-new-tokens", type=int, default=20, help="longest caption; random weights never stop earlier")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU cores to use")
    parser.add_argument("--name", default="speed_cpu", help="name of the result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.model is None:
            write_demo_checkpoint(Path(scratch))
        checkpoint = load_checkpoint(args.model or Path(scratch))
    num_workers = share_cores(checkpoint.model, args.threads)
    footage = load_footage(args.frames, checkpoint.model.config.vision.image_size)
    n, most = args.streams, args.max_new_tokens
    videos = [footage[7 * i % len(footage) :] + footage[: 7 * i % len(footage)] for i in range(n)]  # each its own start
    contestants: dict[str, Callable[[], Run]] = {
        "released algorithm, 1 stream": lambda: released(checkpoint, footage, most),
        f"engine, compat gate, {n} streams one by one": lambda: one_by_one(checkpoint, videos, "compat", most),
        f"engine, compat gate, {n} streams together": lambda: engine(checkpoint, videos, "compat", most, num_workers),
        f"engine, leaf gate, {n} streams one by one": lambda: one_by_one(checkpoint, videos, "leaf", most),
        f"engine, leaf gate, {n} streams together": lambda: engine(checkpoint, videos, "leaf", most, num_workers),
    }
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, contestant in contestants.items():
            runs[name].append(contestant())
            print(f"{name}: {runs[name][-1].seconds:.1f} s", flush=True)

    seconds = {name: statistics.median(run.seconds for run in rounds) for name, rounds in runs.items()}
    last = {name: statistics.median(run.last_seconds for run in rounds) for name, rounds in runs.items()}
    said = [rounds[0].captions for rounds in runs.values()]
    plain, compat, compat_together, leaf, leaf_together = contestants
    table = [
        f"| {name} | {args.frames * (1 if name == plain else n) / seconds[name]:.1f} | "
        f"{'' if 'together' in name else f'{LAST / last[name]:.1f}'} | {len(captions)} |"
        for name, captions in zip(contestants, said, strict=True)
    ]
    body = f"""{args.frames} frames a stream, threshold {THRESHOLD}, captions of at most {most} tokens, no retention; \
{torch.get_num_threads()} torch threads, {num_workers} workers for streams together; median of {args.rounds} alternating rounds.

| contestant | frames per second, all streams | its first stream's last {LAST} frames | its first stream's captions |
|---|---|---|---|
{chr(10).join(table)}

- one stream at {args.frames} frames, engine against released algorithm: **{last[plain] / last[compat]:.1f} times** the frames \
per second (the same captions: {_yes(said[0] == said[1])}); with the leaf gate {last[plain] / last[leaf]:.1f} times
- one stream, from its first frame on: **{n * seconds[plain] / seconds[compat]:.1f} times**; with the leaf gate \
{n * seconds[plain] / seconds[leaf]:.1f} times
- {n} streams together against one by one: compat gate **{seconds[compat] / seconds[compat_together]:.2f} times** the frames per \
second (the same captions: {_yes(said[1] == said[2])}), leaf gate **{seconds[leaf] / seconds[leaf_together]:.2f} times** \
(the same captions: {_yes(said[3] == said[4])})"""
    publish(args.name, "The engine against the released algorithm", body)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "NO"


if __name__ == "__main__":
    main()
