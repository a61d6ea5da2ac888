"""Does a stream stay as fast and as small as it was, however long it lives?

    python -m benchmarks.long_life [--model DIR] [--frames 10000]

One stream watches real footage, over and over, under peak-end retention.  Time per frame and resident memory of the last tenth
of its life are compared with those of its second tenth, when the context budget has long been used up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from benchmarks.footage import load_footage
from benchmarks.report import publish
from livestar.config import EngineConfig, GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.model.demo import write_demo_checkpoint
from livestar.session import load_checkpoint, share_cores
from livestar.types import CaptionDone, Frame, StreamEnded, StreamId

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

STREAM = StreamId("s")


class Life(NamedTuple):
    """What a stream's life was like, frame by frame."""

    milliseconds: list[float]
    """The process's CPU time."""
    mebibytes: list[float]
    contexts: list[int]
    """Tokens in the context."""
    num_captions: int


def live(engine: Engine, footage: Sequence[NDArray[np.uint8]], num_frames: int) -> Life:
    """Watches `num_frames` pictures, going over the footage again and again."""
    process = psutil.Process()
    life = Life([], [], [], 0)
    num_captions = 0
    for number in range(1, num_frames + 1):
        started = time.process_time()
        engine.push(STREAM, Frame(number, float(number), footage[number % len(footage)]))
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, StreamEnded):
                    raise SystemExit(f"the stream ended at frame {number}: {event.error}")
                num_captions += isinstance(event, CaptionDone)
        life.milliseconds.append(1000 * (time.process_time() - started))
        life.mebibytes.append(process.memory_info().rss / 2**20)
        life.contexts.append(engine.num_context_tokens(STREAM))
        if number % max(1, num_frames // 20) == 0:
            recent = statistics.fmean(life.milliseconds[-100:])
            print(f"{number} frames, {life.mebibytes[-1]:.0f} MiB, {recent:.1f} ms a frame", flush=True)
    return life._replace(num_captions=num_captions)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory; the demo checkpoint if not given")
    parser.add_argument("--frames", type=int, default=10_000, help="frames to watch")
    parser.add_argument("--kv-tokens", type=int, default=2048, help="context budget, in tokens")
    parser.add_argument("--retention", default="peak-end", help="retention rule")
    parser.add_argument("--name", default="long_life_cpu", help="name of the result file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.model is None:
            write_demo_checkpoint(Path(scratch))
        checkpoint = load_checkpoint(args.model or Path(scratch))
    share_cores(checkpoint.model, 1)
    config = StreamConfig(
        gate=GateConfig(response_rate=0.15),
        retention=RetentionConfig(name=args.retention, kv_tokens=args.kv_tokens),
        sampling=SamplingConfig(max_new_tokens=16),
    )
    footage = load_footage(76, checkpoint.model.config.vision.image_size)
    engine = Engine(checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=2 * args.kv_tokens))
    engine.open(STREAM, config)
    milliseconds, mebibytes, contexts, num_captions = live(engine, footage, args.frames)
    tenth = args.frames // 10
    rows = []
    for place in range(10):
        part = slice(place * tenth, (place + 1) * tenth)
        rows.append(
            f"| {part.start + 1} to {part.stop} | {statistics.fmean(milliseconds[part]):.2f} | "
            f"{max(mebibytes[part]):.1f} | {max(contexts[part])} |"
        )
    second, last = slice(tenth, 2 * tenth), slice(9 * tenth, 10 * tenth)
    slower = statistics.fmean(milliseconds[last]) / statistics.fmean(milliseconds[second])
    larger = max(mebibytes[last]) / max(mebibytes[second])
    longest = engine.model.config.language.max_position_embeddings
    body = "\n".join(
        [
            f"{args.frames} frames, {num_captions} captions, retention {args.retention}, {args.kv_tokens} tokens; the "
            "threshold calibrates itself to answer 15 % of the frames.",
            "Time is the process's own CPU time, so that other work on the machine does not count.",
            "",
            "| frames | CPU ms a frame | resident MiB, most | context tokens, most |",
            "|---|---|---|---|",
            *rows,
            "",
            f"- time per frame, last tenth over second tenth: **{slower:.3f}**",
            f"- resident memory, last tenth over second tenth: **{larger:.3f}**",
            f"- longest context {max(contexts)} tokens; positions are context rows, and the trained range is {longest}",
        ]
    )
    publish(args.name, "A long life", body)


if __name__ == "__main__":
    main()
