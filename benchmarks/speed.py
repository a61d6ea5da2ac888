"""How much faster is the engine than the released algorithm, and 16 streams together than one?

    python -m benchmarks.speed [--model DIR] [--frames 60] [--streams 16]

Everything is measured in one process on the same frames and weights, and reported as ratios.  The rounds of the contestants
alternate and the median round counts, since other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
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
from livestar.session import Checkpoint, load_checkpoint
from livestar.types import CaptionDone, Frame, StreamId

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from livestar.config import GateName

    Images = Sequence[NDArray[np.uint8]]

THRESHOLD = 1.03
MAX_NEW_TOKENS = 32


def released(checkpoint: Checkpoint, images: Images) -> tuple[float, list[str]]:
    """Seconds of the released loop over `images`, and its captions."""
    prompt = make_prompt(checkpoint.model.config, checkpoint.tokenizer)
    loop = ReleasedLoop(checkpoint.model, prompt, threshold=THRESHOLD, max_new_tokens=MAX_NEW_TOKENS)
    started = time.perf_counter()
    verdicts = [loop.watch(torch.from_numpy(image)) for image in images]
    return time.perf_counter() - started, [v.caption for v in verdicts if v.caption is not None]


def engine(checkpoint: Checkpoint, images: Images, num_streams: int, gate: GateName) -> tuple[float, list[str]]:
    """Seconds of one engine with `num_streams` streams, each over `images` from another start; captions of the first stream."""
    config = StreamConfig(
        gate=GateConfig(name=gate, threshold=THRESHOLD),
        retention=RetentionConfig(name="none"),
        sampling=SamplingConfig(max_new_tokens=MAX_NEW_TOKENS),
    )
    watcher = Engine(checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=10000 * num_streams))
    offsets = {StreamId(f"s{i}"): 7 * i for i in range(num_streams)}
    for stream_id in offsets:
        watcher.open(stream_id, config)
    num_pushed = dict.fromkeys(offsets, 0)
    captions: list[str] = []
    started = time.perf_counter()
    while watcher.has_work or any(n < len(images) for n in num_pushed.values()):
        for stream_id, offset in offsets.items():
            n = num_pushed[stream_id]
            if n < len(images) and watcher.can_push(stream_id):
                watcher.push(stream_id, Frame(n + 1, float(n), images[(n + offset) % len(images)]))
                num_pushed[stream_id] += 1
        captions += [e.text for e in watcher.step() if isinstance(e, CaptionDone) and e.stream_id == "s0"]
    return time.perf_counter() - started, captions


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory; the demo checkpoint if not given")
    parser.add_argument("--frames", type=int, default=60, help="frames of each stream")
    parser.add_argument("--streams", type=int, default=16, help="streams in the shared engine")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--name", default="speed_cpu", help="name of the result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.model is None:
            write_demo_checkpoint(Path(scratch))
        checkpoint = load_checkpoint(args.model or Path(scratch))
    images = load_footage(args.frames, checkpoint.model.config.vision.image_size)
    contestants = {
        "released algorithm, 1 stream": lambda: released(checkpoint, images),
        "engine, compat gate, 1 stream": lambda: engine(checkpoint, images, 1, "compat"),
        f"engine, compat gate, {args.streams} streams": lambda: engine(checkpoint, images, args.streams, "compat"),
        "engine, leaf gate, 1 stream": lambda: engine(checkpoint, images, 1, "leaf"),
        f"engine, leaf gate, {args.streams} streams": lambda: engine(checkpoint, images, args.streams, "leaf"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    captions: dict[str, list[str]] = {}
    for _ in range(args.rounds):
        for name, run in contestants.items():
            spent, captions[name] = run()
            seconds[name].append(spent)
            print(f"{name}: {spent:.2f} s", flush=True)

    one, compat_1, compat_n, leaf_1, leaf_n = (statistics.median(seconds[name]) for name in contestants)
    same = captions["released algorithm, 1 stream"] == captions["engine, compat gate, 1 stream"]
    n = args.streams
    rows = [
        f"| {name} | {args.frames * (n if f'{n} streams' in name else 1) / statistics.median(seconds[name]):.1f} | "
        f"{len(captions[name])} |"
        for name in contestants
    ]
    body = "\n".join(
        [
            f"{args.frames} frames a stream, threshold {THRESHOLD}, captions of at most {MAX_NEW_TOKENS} tokens, no retention, "
            f"median of {args.rounds} alternating rounds.",
            "",
            "| contestant | frames per second, all streams | captions of the first stream |",
            "|---|---|---|",
            *rows,
            "",
            f"- engine against released algorithm, one stream: **{one / compat_1:.1f} times** (same captions: {same}); "
            f"leaf gate {one / leaf_1:.1f} times",
            f"- {n} streams against one, compat gate: **{n * compat_1 / compat_n:.2f} times** the frames per second; "
            f"leaf gate {n * leaf_1 / leaf_n:.2f} times",
        ]
    )
    publish(args.name, "The engine against the released algorithm", body)


if __name__ == "__main__":
    main()
