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
from typing import TYPE_CHECKING

import torch

from benchmarks.footage import load_footage
from benchmarks.report import publish
from livestar.config import EngineConfig, GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import make_prompt
from livestar.engine.engine import Engine
from livestar.model.demo import write_demo_checkpoint
from livestar.reference import ReleasedLoop
from livestar.session import Checkpoint, load_checkpoint, share_cores
from livestar.types import CaptionDone, Frame, StreamId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from livestar.config import GateName

    Images = Sequence[NDArray[np.uint8]]

THRESHOLD = 1.03
MAX_NEW_TOKENS = 48
"""The median caption of the public OmniStar-RNG annotations has 48 tokens; random weights never stop earlier."""


def released(checkpoint: Checkpoint, images: Images) -> tuple[float, list[str]]:
    """Seconds of the released loop over `images`, and its captions."""
    prompt = make_prompt(checkpoint.model.config, checkpoint.tokenizer)
    loop = ReleasedLoop(checkpoint.model, prompt, threshold=THRESHOLD, max_new_tokens=MAX_NEW_TOKENS)
    started = time.perf_counter()
    verdicts = [loop.watch(torch.from_numpy(image)) for image in images]
    return time.perf_counter() - started, [v.caption for v in verdicts if v.caption is not None]


def engine(checkpoint: Checkpoint, videos: Sequence[Images], gate: GateName, num_workers: int = 1) -> tuple[float, list[str]]:
    """Seconds of one engine with a stream for each of `videos`; captions of the first."""
    config = StreamConfig(
        gate=GateConfig(name=gate, threshold=THRESHOLD),
        retention=RetentionConfig(name="none"),
        sampling=SamplingConfig(max_new_tokens=MAX_NEW_TOKENS),
    )
    watcher = Engine(
        checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=10000 * len(videos), num_workers=num_workers)
    )
    waiting = {StreamId(f"s{i}"): deque(enumerate(images, 1)) for i, images in enumerate(videos)}
    for stream_id in waiting:
        watcher.open(stream_id, config)
    captions: list[str] = []
    started = time.perf_counter()
    while watcher.has_work or any(waiting.values()):
        for stream_id, frames in waiting.items():
            if frames and watcher.can_push(stream_id):
                number, image = frames.popleft()
                watcher.push(stream_id, Frame(number, float(number), image))
        captions += [e.text for e in watcher.step() if isinstance(e, CaptionDone) and e.stream_id == "s0"]
    seconds = time.perf_counter() - started
    watcher.shut_down()
    return seconds, captions


def one_by_one(checkpoint: Checkpoint, videos: Sequence[Images], gate: GateName) -> tuple[float, list[str]]:
    """Seconds of the same streams, each alone in an engine of its own, one after the other."""
    runs = [engine(checkpoint, [images], gate) for images in videos]
    return sum(seconds for seconds, _ in runs), runs[0][1]


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory; the demo checkpoint if not given")
    parser.add_argument("--frames", type=int, default=60, help="frames of each stream")
    parser.add_argument("--streams", type=int, default=16, help="streams in the shared engine")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU cores to use")
    parser.add_argument("--name", default="speed_cpu", help="name of the result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.model is None:
            write_demo_checkpoint(Path(scratch))
        checkpoint = load_checkpoint(args.model or Path(scratch))
    num_workers = share_cores(checkpoint.model, args.threads)
    footage = load_footage(args.frames, checkpoint.model.config.vision.image_size)
    n = args.streams
    videos = [footage[7 * i % len(footage) :] + footage[: 7 * i % len(footage)] for i in range(n)]  # each its own start
    contestants: dict[str, tuple[int, Callable[[], tuple[float, list[str]]]]] = {
        "released algorithm, 1 stream": (1, lambda: released(checkpoint, footage)),
        "engine, compat gate, the same stream": (1, lambda: engine(checkpoint, videos[:1], "compat")),
        "engine, leaf gate, the same stream": (1, lambda: engine(checkpoint, videos[:1], "leaf")),
        f"engine, compat gate, {n} streams one by one": (n, lambda: one_by_one(checkpoint, videos, "compat")),
        f"engine, compat gate, {n} streams together": (n, lambda: engine(checkpoint, videos, "compat", num_workers)),
        f"engine, leaf gate, {n} streams one by one": (n, lambda: one_by_one(checkpoint, videos, "leaf")),
        f"engine, leaf gate, {n} streams together": (n, lambda: engine(checkpoint, videos, "leaf", num_workers)),
    }
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    captions: dict[str, list[str]] = {}
    for _ in range(args.rounds):
        for name, (num_streams, run) in contestants.items():
            seconds, captions[name] = run()
            rounds[name].append(args.frames * num_streams / seconds)
            print(f"{name}: {rounds[name][-1]:.1f} frames per second", flush=True)

    rates = {name: statistics.median(values) for name, values in rounds.items()}
    plain, compat, leaf, compat_apart, compat_together, leaf_apart, leaf_together = rates.values()
    said = list(captions.values())
    table = [f"| {name} | {rate:.1f} | {len(captions[name])} |" for name, rate in rates.items()]
    body = "\n".join(
        [
            f"{args.frames} frames a stream, threshold {THRESHOLD}, captions of at most {MAX_NEW_TOKENS} tokens, no retention, "
            f"{torch.get_num_threads()} torch threads, {num_workers} workers, median of {args.rounds} alternating rounds.",
            "",
            "| contestant | frames per second, all streams | captions of the first stream |",
            "|---|---|---|",
            *table,
            "",
            f"- the engine against the released algorithm, one stream: **{compat / plain:.1f} times** the frames per second "
            f"(the same captions: {'yes' if said[0] == said[1] else 'NO'}); with the leaf gate {leaf / plain:.1f} times",
            f"- {n} streams together against one by one: **{compat_together / compat_apart:.2f} times** the frames per second "
            f"(the same captions: {'yes' if said[3] == said[4] else 'NO'}); "
            f"with the leaf gate {leaf_together / leaf_apart:.2f} times",
        ]
    )
    publish(args.name, "The engine against the released algorithm", body)


if __name__ == "__main__":
    main()
