"""Watch a file and print every kind of event.

    python examples/01_watch_a_file.py [SOURCE [MODEL]]

Run it from the repository's root.  Without MODEL it takes livestar-mini, which comes with LiveStar.
"""

from __future__ import annotations

import sys
from pathlib import Path

from livestar.config import GateConfig, MediaConfig, StreamConfig
from livestar.model.mini import model_directory
from livestar.session import WatchSession, load_checkpoint
from livestar.types import CaptionDone, Notice, StreamEnded, Verdict

SOURCE = "livestar/assets/french_gp_1906.ogv"
MODEL = "livestar-mini"


def main(source: str = SOURCE, model: str = MODEL) -> int:
    checkpoint = load_checkpoint(model_directory(Path(model)))
    media = MediaConfig(fps=2, pace="fast")
    stream = StreamConfig(gate=GateConfig(response_rate=0.2))
    status = 0
    with WatchSession(checkpoint, [source], media, stream) as session:
        for event in session.events():
            match event:
                case None:
                    continue  # nothing for a while: time for something else
                case CaptionDone():
                    print(f"{event.time_s:6.2f} s  says     {event.text!r}")
                case Verdict(ratio=None):
                    print(f"{event.time_s:6.2f} s  {event.decision}  first caption")
                case Verdict():
                    print(f"{event.time_s:6.2f} s  {event.decision:8} ratio {event.ratio:.3f}, threshold {event.threshold:.3f}")
                case Notice():
                    print(f"{event.time_s:6.2f} s  notice   {event.code} x{event.count}: {event.message}")
                case StreamEnded():
                    print(f"{event.time_s:6.2f} s  ended    {event.error or 'regularly'}")
                    status = 0 if event.error is None else 1
        print(f"{session.stats.num_frames} frames, {session.stats.num_captions} captions")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
