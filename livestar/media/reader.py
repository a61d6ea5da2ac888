"""A source being read: one thread from its address to the frames in a queue.

The thread opens, decodes, samples, paces and puts, and it alone touches decoder, sampler and pacer.  What others see of
it is the queue, the notices, which are called on this thread, and `stats`, which are plain counters.  Whatever happens,
the thread's last act is to close the queue, with the error if there is one.

`stop` does not wait.  A thread that is inside a blocking read notices at the latest after `open_timeout_s` or
`stall_timeout_s`; until then it holds nothing but its own connection, because the queue is cancelled at once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livestar.config import MediaConfig
from livestar.errors import EngineFailed, InvalidConfig, LiveStarError, SourceError, SourceStalled, SourceUnreadable
from livestar.media.decode import VideoInput
from livestar.media.frame_queue import FrameQueue
from livestar.media.notices import OnNotice, Tally
from livestar.media.pace import RealTimePacer
from livestar.media.pictures import read_pictures
from livestar.media.sample import Sampler
from livestar.media.source import Source, SourceKind, classify, display_name, list_pictures
from livestar.types import Frame

logger = logging.getLogger(__name__)

MAX_BACKOFF_S = 30.0
MAX_DOUBLINGS = 30
"""Doublings of the backoff; far beyond `MAX_BACKOFF_S`, and no overflow."""


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """What a reader has done so far."""

    num_decoded: int
    """Pictures decoded; those that nothing depends on and nobody wants are not."""
    num_sampled: int
    """Pictures that became frames."""
    num_packets_skipped: int
    """Packets, or pictures of a folder, that were damaged."""
    num_reconnects: int
    """Times that a lost source was opened again."""


class SourceReader:
    """Reads one source into a queue.

    Make the queue to match the pace: `drop_oldest` for `realtime`, `block` for `fast`.  A live source comes at its own
    speed whatever the pace; with `block` it lags, or loses packets, as soon as the consumer is slower.
    """

    def __init__(
        self,
        uri: str,
        *,
        config: MediaConfig,
        image_size: int,
        queue: FrameQueue,
        on_notice: OnNotice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_notice` is called on the reader's thread, with the codes that `docs/events.md` lists under media."""
        self._uri = uri
        self._name = display_name(uri)
        self._config = config
        self._image_size = image_size
        self._queue = queue
        self._on_notice = on_notice
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source {self._name}", daemon=True)
        self._pacer: RealTimePacer | None = None
        self._num_frames = 0
        self._num_decoded = 0
        self._num_sampled = 0
        self._num_skipped = 0
        self._num_reconnects = 0
        self._num_attempts = 0
        self._is_lost = False
        self._last_picture_at: float | None = None

    def start(self) -> None:
        """Begin to read; once only."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more and discard what waits in the queue.  Returns at once; `join` waits."""
        self._stop.set()
        self._queue.cancel()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread; False where it still runs."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def stats(self) -> ReaderStats:
        """The counters as of now."""
        return ReaderStats(self._num_decoded, self._num_sampled, self._num_skipped, self._num_reconnects)

    def _run(self) -> None:
        error: LiveStarError | None = None
        try:
            self._watch()
        except LiveStarError as known:
            error = known
        except Exception as unknown:
            logger.exception("reading %s failed", self._name)
            error = EngineFailed(f"reading {self._name} failed: {type(unknown).__name__}; please report it with the log")
        finally:
            self._queue.close(error)

    def _watch(self) -> None:
        source = classify(self._uri)
        logger.info("reading %s as %s", source.name, source.kind)
        if source.kind is SourceKind.PICTURES:
            self._watch_pictures(source)
        else:
            self._watch_video(source)

    def _watch_pictures(self, source: Source) -> None:
        try:
            paths = list_pictures(source.location)
        except OSError as error:
            raise SourceUnreadable(f"{source.name} may not be read ({error.strerror}); check its permissions") from error
        if not paths:
            raise SourceUnreadable(f"{source.name} is a folder without pictures; put png, jpg, webp or bmp files in it")
        first = math.ceil(self._config.start_s * self._config.fps - 1e-6)
        if first >= len(paths):
            length_s = len(paths) / self._config.fps
            raise InvalidConfig(f"start_s is {self._config.start_s:g}, but {source.name} lasts {length_s:.3f} s")
        self._start_pacing()
        tally = Tally("pictures_skipped", on_notice=self._on_notice, clock=self._clock)
        try:
            lap = 0
            while self._show_pictures(paths, first, lap * (len(paths) - first), tally) and self._config.loop:
                lap += 1
                self._on_notice("looped", f"{source.name} ended and starts again", 1)
        finally:
            tally.flush()

    def _show_pictures(self, paths: list[Path], first: int, shift: int, tally: Tally) -> bool:
        """Put one lap of pictures into the queue; False where that was stopped."""
        num_shown, problem = 0, ""
        pictures = read_pictures(paths, first=first, image_size=self._image_size, max_pixels=self._config.max_pixels)
        for position, image, its_problem in pictures:
            if image is None:
                problem = problem or its_problem
                self._num_skipped += 1
                tally.add(1, its_problem)
                continue
            num_shown += 1
            self._num_decoded += 1
            if not self._put((shift + position) / self._config.fps, image):
                return False
        if num_shown == 0:
            raise SourceUnreadable(f"{self._name}: no picture can be read; the first: {problem}")
        return True

    def _watch_video(self, source: Source) -> None:
        first = VideoInput.open(source, self._config)
        sampler = self._sampler_for(first)
        tally = Tally("packets_skipped", on_notice=self._on_notice, clock=self._clock)
        video: VideoInput | None = first
        try:
            while video is not None:
                with video:
                    num_shown, loss = self._show(video, sampler, tally)
                if self._stop.is_set():
                    return
                if video.is_live:
                    video = self._reopen(source, loss)
                elif self._config.loop and num_shown > 0:
                    self._on_notice("looped", f"{source.name} ended and starts again", 1)
                    sampler.start_again(video.end_s)
                    video = VideoInput.open(source, self._config)
                else:
                    video = None
        finally:
            tally.flush()

    def _show(self, video: VideoInput, sampler: Sampler, tally: Tally) -> tuple[int, SourceError | None]:
        """Play an open source to its end.  Returns the pictures seen, and how a live source was lost."""
        num_shown = 0
        num_decoded, num_skipped = self._num_decoded, self._num_skipped
        try:
            for picture in video.pictures():
                self._num_decoded = num_decoded + video.num_decoded
                tally.add(num_skipped + video.num_packets_skipped - self._num_skipped, self._skipped_message)
                self._num_skipped = num_skipped + video.num_packets_skipped
                if self._stop.is_set():
                    break
                if picture is None:
                    continue
                num_shown += 1
                if video.is_live:
                    self._note_alive(sampler)
                pts_s = sampler.take(picture.time_s)
                video.wanted_from_s = sampler.due_s
                if pts_s is not None and not self._put(pts_s, picture.to_image(self._image_size)):
                    break
        except SourceError as error:
            if not video.is_live:
                raise
            return num_shown, error
        return num_shown, None

    def _sampler_for(self, video: VideoInput) -> Sampler:
        config = self._config
        if video.is_live:
            sampler = Sampler(config.fps, max_gap_s=video.max_gap_s, interval_s=video.interval_s)
            sampler.continue_after()
            return sampler
        self._start_pacing()
        return Sampler(config.fps, start_s=config.start_s, max_gap_s=video.max_gap_s, interval_s=video.interval_s)

    def _note_alive(self, sampler: Sampler) -> None:
        """A live picture came: if the source was lost, it is back."""
        now_s = self._clock()
        if self._is_lost:
            self._is_lost = False
            if self._last_picture_at is not None:
                sampler.continue_after(now_s - self._last_picture_at)
            self._on_notice("source_back", f"{self._name} is back", 1)
        self._num_attempts = 0
        self._last_picture_at = now_s

    def _reopen(self, source: Source, loss: SourceError | None) -> VideoInput | None:
        """Open a lost live source again, with backoff; None where that was stopped or nobody wants it.

        Raises `SourceStalled` after `max_reconnects` attempts in a row.  Where none is allowed, the end of a live
        source is a regular one, and silence is not.
        """
        max_attempts = self._config.max_reconnects
        if max_attempts == 0:
            if loss is not None:
                raise loss
            return None
        loss = loss or SourceStalled(f"{source.name} ended; check that it is still being sent")
        if not self._is_lost:
            self._is_lost = True
            self._on_notice("source_lost", str(loss), 1)
        while self._num_attempts < max_attempts:
            backoff_s = min(self._config.reconnect_backoff_s * 2 ** min(self._num_attempts, MAX_DOUBLINGS), MAX_BACKOFF_S)
            self._num_attempts += 1
            if self._stop.wait(backoff_s):
                return None
            try:
                video = VideoInput.open(source, self._config)
            except SourceError as error:
                loss = error
                logger.info("reopening %s failed, attempt %d of %d", source.name, self._num_attempts, max_attempts)
            else:
                self._num_reconnects += 1
                return video
        raise SourceStalled(f"{loss} (gave up after {max_attempts} attempts to reopen it)") from loss

    def _start_pacing(self) -> None:
        if self._config.pace == "realtime":
            self._pacer = RealTimePacer(clock=self._clock, wait=self._stop.wait)

    def _put(self, pts_s: float, image: NDArray[np.uint8]) -> bool:
        """Put a frame into the queue at its time; False where nobody wants it any more."""
        if self._pacer is not None and not self._pacer.hold(pts_s):
            return False
        self._num_frames += 1
        self._num_sampled += 1
        if not self._queue.put(Frame(self._num_frames, pts_s, image)):
            self._stop.set()
        return not self._stop.is_set()

    @property
    def _skipped_message(self) -> str:
        return f"{self._name}: damaged packets were skipped; check the file or the network"
