"""Real pictures for benchmarks: the video that ships with the repository, decoded to a model's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import livestar
from livestar.config import MediaConfig
from livestar.media import FrameQueue, SourceReader

VIDEO = Path(livestar.__file__).parent / "assets" / "french_gp_1906.ogv"


def load_footage(num_frames: int, image_size: int, *, fps: float = 4.0) -> list[NDArray[np.uint8]]:
    """The first `num_frames` pictures at `fps`, looping where the video is shorter: [S, S, 3] each."""
    queue = FrameQueue(4, overflow="block")
    config = MediaConfig(fps=fps, pace="fast", loop=True)
    reader = SourceReader(str(VIDEO), config=config, image_size=image_size, queue=queue, on_notice=lambda *_: None)
    images: list[NDArray[np.uint8]] = []
    reader.start()
    while len(images) < num_frames and not queue.is_finished:
        frame = queue.poll()
        if frame is not None:
            images.append(frame.image)
    reader.stop()
    reader.join()
    if queue.error is not None and not images:
        raise queue.error
    return images
