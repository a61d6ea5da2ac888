"""One film in three streams of one engine, each with another gate; prints ratios, and a star where a stream spoke.

    python examples/03_compare_gates.py [SOURCE [MODEL]]

A reader decodes on a thread of its own; every stream is given the same frames, and all advance in the same batches.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from livestar.config import EngineConfig, GateConfig, GateName, MediaConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.media import FrameQueue, SourceReader
from livestar.model.mini import model_directory
from livestar.session import load_checkpoint
from livestar.types import Frame, StreamId, Verdict

GATES: tuple[GateName, ...] = ("compat", "scam", "leaf")


def frames_of(source: str, image_size: int) -> Iterator[Frame]:
    """Every frame that is sampled; waits for the reader."""
    changed = threading.Event()
    queue = FrameQueue(4, overflow="block", on_change=changed.set)
    SourceReader(source, config=MediaConfig(pace="fast"), image_size=image_size, queue=queue, on_notice=print).start()
    while not queue.is_finished:
        changed.clear()
        if (frame := queue.poll()) is not None:
            yield frame
        else:
            changed.wait(0.1)
    if queue.error is not None:
        raise queue.error


def main(source: str = "livestar/assets/french_gp_1906.ogv", model: str = "livestar-mini") -> None:
    checkpoint = load_checkpoint(model_directory(Path(model)))
    engine = Engine(checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=32768))
    for gate in GATES:
        engine.open(StreamId(gate), StreamConfig(gate=GateConfig(name=gate), sampling=SamplingConfig(max_new_tokens=24)))
    print("seconds", *GATES, sep="\t")
    for frame in frames_of(source, checkpoint.model.config.vision.image_size):
        for gate in GATES:
            engine.push(StreamId(gate), frame)
        shown: dict[str, str] = {}
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, Verdict):
                    ratio = "first" if event.ratio is None else f"{event.ratio:.3f}"
                    shown[event.stream_id] = ratio + "*" * (event.decision == "respond")
        print(f"{frame.pts_s:.1f}", *(shown[gate] for gate in GATES), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
