"""Push your own pictures into the engine: no source, no threads, one step after the other.

    python examples/02_push_pictures.py [MODEL]

Here the pictures are drawn: a ball rolls over a meadow, then night falls.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from livestar.config import EngineConfig, GateConfig, SamplingConfig, StreamConfig
from livestar.engine.engine import Engine
from livestar.media.pictures import fit
from livestar.model.mini import model_directory
from livestar.session import load_checkpoint
from livestar.types import CaptionDone, Frame, StreamId, Verdict

MEADOW, NIGHT = (90, 170, 70), (10, 10, 40)


def picture(number: int) -> Image.Image:
    """The picture of second `number`."""
    image = Image.new("RGB", (320, 180), MEADOW if number <= 8 else NIGHT)
    x = 20 * number
    ImageDraw.Draw(image).ellipse((x, 120, x + 30, 150), fill=(220, 40, 40))
    return image


def main(model: str = "livestar-mini") -> None:
    checkpoint = load_checkpoint(model_directory(Path(model)))
    engine = Engine(checkpoint.model, checkpoint.tokenizer, EngineConfig(num_kv_tokens=16384))
    meadow = StreamId("meadow")
    engine.open(meadow, StreamConfig(gate=GateConfig(threshold=1.03), sampling=SamplingConfig(max_new_tokens=24)))
    size = checkpoint.model.config.vision.image_size
    for number in range(1, 17):
        engine.push(meadow, Frame(index=number, pts_s=float(number), image=fit(picture(number), size)))
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, CaptionDone):
                    print(f"frame {event.frame}: {event.text!r}")
                elif isinstance(event, Verdict) and event.ratio is not None:
                    print(f"frame {event.frame}: {event.decision}, ratio {event.ratio:.3f}")
    print(f"{engine.num_context_tokens(meadow)} tokens in the context")
    engine.close(meadow)


if __name__ == "__main__":
    main(*sys.argv[1:])
