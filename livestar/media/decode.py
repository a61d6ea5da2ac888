"""From an address to decoded pictures.  The only importer of av.

A `VideoInput` is one open container: it demuxes the best video stream, decodes what may be wanted and hands pictures on
undecoded to RGB, because most of them are not sampled.  FFmpeg's errors end here: what leaves is a `SourceError`.
PyAV keeps FFmpeg's own log silent by default, and so it stays: its lines would show addresses with their passwords.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from livestar.config import MediaConfig
from livestar.errors import InvalidConfig, SourceError, SourceNotFound, SourceStalled, SourceTruncated, SourceUnreadable
from livestar.media import mp4
from livestar.media.pictures import fit, too_large
from livestar.media.source import ACCEPTED_FORMS, LIVE_SCHEMES, Source, SourceKind
from livestar.media.srt import SrtRelay

MAX_ERRORS_IN_A_ROW = 1000
"""Reads in a row that may fail before a source is given up: some demuxers never say that the rest is lost."""
MIN_MISSING_S = 0.5
MIN_MISSING_SHARE = 0.02
"""A source is truncated where more than both of these is missing: containers round, and some count the sound."""
SELF_MEASURED_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "hls")
"""Formats whose length is written down, not guessed from their size."""
SEEK_BACK_S = (0.0, 4.0, 16.0, 64.0, math.inf)
"""How far before the wanted start to look for a keyframe, in turn."""
MAX_PACKETS_TO_KEYFRAME = 1000
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")
"""Decoders that would paint a text file as a picture."""


class DecodedPicture:
    """A picture as it left the decoder."""

    def __init__(self, frame: VideoFrame, time_s: float | None, rotate_tag: str | None) -> None:
        self.time_s = time_s
        """Seconds since the start of the stream by its own clock; None where it has no timestamp."""
        self._frame = frame
        self._rotate_tag = rotate_tag

    def to_image(self, image_size: int) -> NDArray[np.uint8]:
        """The picture upright, RGB, [image_size, image_size, 3]."""
        return fit(Image.fromarray(self.to_rgb()), image_size)

    def to_rgb(self) -> NDArray[np.uint8]:
        """The picture upright, RGB, [height, width, 3]."""
        try:
            rgb = self._frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        except av.error.FFmpegError as error:
            pixels = self._frame.format.name
            raise SourceUnreadable(f"pixels of the format {pixels} cannot be shown; convert the video to H.264") from error
        return _upright(rgb, self._matrix())

    def _matrix(self) -> tuple[int, int, int, int]:
        """Where x and y go: x' = a x + c y, y' = b x + d y."""
        # PyAV's stub knows of one key only.
        matrix = cast("Mapping[str, SideData]", self._frame.side_data).get("DISPLAYMATRIX")
        if matrix is not None:
            a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
            return a, b, c, d
        turns = {"90": (0, 1, -1, 0), "180": (-1, 0, 0, -1), "270": (0, -1, 1, 0)}
        return turns.get(self._rotate_tag or "", (1, 0, 0, 1))


class VideoInput:
    """One open video source; close it, or use it as a context."""

    def __init__(self, container: InputContainer, stream: VideoStream, source: Source, config: MediaConfig) -> None:
        self._container = container
        self._resources = ExitStack()
        self._stream = stream
        self._source = source
        self._config = config
        self._time_base = float(stream.time_base or Fraction(1, 90000))
        self._length_s = _length_s(container, stream)
        self.end_s = 0.0
        """Where the last whole packet ends, in seconds since the start of the stream."""
        self._origin: int | None = stream.start_time
        self.is_live = _is_live(container, source)
        """Whether the source has no end of its own, so that an end is a loss."""
        self.wanted_from_s = -math.inf
        """Pictures before this are not wanted; those on which no other depends are not decoded.  The reader sets it."""
        self.num_decoded = 0
        self.num_packets_skipped = 0
        """Packets that were damaged."""

    @classmethod
    def open(cls, source: Source, config: MediaConfig) -> Self:
        """Open a file or a URL and find its video.

        Raises `SourceNotFound`, `SourceUnreadable`, or `SourceTruncated` for a file whose index is cut off.
        """
        with ExitStack() as resources:
            container = _connect(source, config, resources)
            resources.callback(container.close)
            stream = _choose_stream(container, source, config)
            opened = cls(container, stream, source, config)
            opened._prepare()
            opened._resources = resources.pop_all()
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and the connection."""
        self._resources.close()

    @property
    def interval_s(self) -> float:
        """Usual time from one picture to the next, as the container tells it."""
        rate = self._stream.average_rate
        return float(1 / rate) if rate else 0.04

    @property
    def max_gap_s(self) -> float:
        """A longer step of the stream's clock is a jump."""
        if self.is_live:
            return self._config.stall_timeout_s
        about_s = self._container.duration / av.time_base if self._container.duration else 3600.0
        return max(about_s, 10.0)

    def pictures(self) -> Iterator[DecodedPicture | None]:
        """Every picture in turn; None for a packet that gave none, so that the caller can look up.

        Raises at the end `SourceTruncated` or `SourceUnreadable` where that is what the end means, and `SourceStalled`
        where a live source failed.
        """
        context = self._stream.codec_context
        rotate_tag = next((turn for key, turn in self._stream.metadata.items() if key.lower() == "rotate"), None)
        for packet in self._packets():
            context.skip_frame = "NONREF" if self._is_before_wanted(packet) else "DEFAULT"
            try:
                frames = context.decode(packet)
            except av.error.EOFError:
                continue
            except av.error.FFmpegError:
                self.num_packets_skipped += 1
                yield None
                continue
            if not frames:
                yield None
            for frame in frames:
                if frame.width * frame.height > self._config.max_pixels:
                    self.num_packets_skipped += 1
                    yield None
                    continue
                self.num_decoded += 1
                time_s = self._time_s(frame.pts)
                if time_s is not None and not self.is_live and time_s < self._config.start_s - self._time_base:
                    yield None
                    continue
                yield DecodedPicture(frame, time_s, rotate_tag)
        self._check_end()

    def measure(self) -> float:
        """Length of the video in seconds, by reading all of it without decoding.

        Raises `SourceTruncated` and `SourceStalled` as `pictures` does.
        """
        for _ in self._packets():
            pass
        self._check_length()
        return max(self.end_s, self.interval_s)

    def _prepare(self) -> None:
        for stream in self._container.streams:
            # An HLS or DASH source then does not fetch the variants that nobody watches.
            stream.discard = Discard.default if stream.index == self._stream.index else Discard.all
        context = self._stream.codec_context
        context.options = _pixel_limit(self._config)
        # One thread per stream: a server watches many.  Who reads a file as fast as possible wants all cores.
        if self._config.pace == "fast" and not self.is_live:
            context.thread_type = "AUTO"
        else:
            context.thread_count = 1
        if self._config.start_s > 0 and not self.is_live:
            self._seek()

    def _seek(self) -> None:
        start_s = self._config.start_s
        if self._length_s is not None and start_s >= self._length_s:
            lasts = f"{self._source.name} lasts {self._length_s:.3f} s"
            raise InvalidConfig(f"start_s is {start_s:g}, but {lasts}; give a smaller one")
        # Formats without an index, such as MPEG-TS, land on any packet: go further back until a keyframe lies before.
        for back_s in SEEK_BACK_S:
            target_s = max(0.0, start_s - back_s)
            target = int(target_s / self._time_base) + (self._origin or 0)
            try:
                self._container.seek(target, stream=self._stream)
                is_found = target_s == 0.0 or self._next_keyframe_s() <= start_s
                self._container.seek(target, stream=self._stream)
            except (av.error.FFmpegError, IndexError):
                # A server without ranges, or damage: what comes before start_s is read and passed over.
                return
            if is_found:
                return

    def _next_keyframe_s(self) -> float:
        """Time of the next keyframe, which is read on the way; infinite where none is near."""
        for packet in islice(self._container.demux(self._stream), MAX_PACKETS_TO_KEYFRAME):
            if packet.is_keyframe and packet.pts is not None:
                return (packet.pts - (self._origin or 0)) * self._time_base
        return math.inf

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Packets that are whole, then None to drain the decoder."""
        num_errors = 0
        while num_errors < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self._container.demux(self._stream):
                    num_errors = 0
                    if packet.size == 0 and packet.pts is None and packet.dts is None:
                        continue
                    if packet.is_corrupt:
                        self.num_packets_skipped += 1
                        continue
                    self._follow(packet)
                    yield packet
                break
            except av.error.InvalidDataError:
                num_errors += 1
                self.num_packets_skipped += 1
            except IndexError:
                # The end, reached by PyAV 18 with more streams than it opened with: damage looked like a new one.
                break
            except av.error.ExitError as error:
                yield None
                raise self._stalled() from error
            except av.error.FFmpegError as error:
                yield None
                raise self._broken(error) from error
        yield None

    def _follow(self, packet: Packet[VideoStream]) -> None:
        start_s = self._time_s(packet.pts if packet.pts is not None else packet.dts)
        if start_s is not None:
            self.end_s = max(self.end_s, start_s + (packet.duration or 0) * self._time_base)

    def _time_s(self, pts: int | None) -> float | None:
        if pts is None:
            return None
        if self._origin is None:
            self._origin = pts
        return (pts - self._origin) * self._time_base

    def _is_before_wanted(self, packet: Packet[VideoStream] | None) -> bool:
        if packet is None or packet.pts is None:
            return False
        time_s = self._time_s(packet.pts)
        return time_s is not None and time_s < self.wanted_from_s

    def _check_end(self) -> None:
        """Raise what the end of the source means, if it is not a regular one."""
        name = self._source.name
        if self.is_live and self.num_decoded == 0:
            raise SourceStalled(f"{name} ended before its first picture; check that it is being sent")
        if self.is_live:
            return
        self._check_length()
        if self.num_decoded == 0 and self.num_packets_skipped:
            failed = f"{self.num_packets_skipped} packets failed"
            raise SourceUnreadable(f"{name} is damaged: none of its pictures can be decoded ({failed}); get it again")
        if self.num_decoded == 0:
            raise SourceUnreadable(f"{name} has a video track without a picture in it; give a source with video")

    def _check_length(self) -> None:
        """Raise where much is missing of what the container says."""
        if self._length_s is not None:
            missing_s = self._length_s - self.end_s
            if missing_s > max(MIN_MISSING_S, MIN_MISSING_SHARE * self._length_s):
                share = f"{self.end_s:.1f} of its {self._length_s:.1f} s"
                raise SourceTruncated(f"{self._source.name} ends after {share}: it is incomplete; get it again")

    def _stalled(self) -> SourceStalled:
        return SourceStalled(
            f"{self._source.name} delivered nothing for {self._config.stall_timeout_s:g} s; "
            "check that it is still being sent, or raise stall_timeout_s"
        )

    def _broken(self, error: av.error.FFmpegError) -> SourceError:
        broke_off = f"{self._source.name} broke off after {self.end_s:.1f} s ({error.strerror})"
        if self.is_live:
            return SourceStalled(f"{broke_off}; check that it is still being sent")
        return SourceTruncated(f"{broke_off}; try it again")


def _connect(source: Source, config: MediaConfig, resources: ExitStack) -> InputContainer:
    location = f"file:{source.location}" if source.kind is SourceKind.FILE else source.location
    scheme = location.partition(":")[0]
    try:
        return _open_container(location, source, config)
    except av.error.ProtocolNotFoundError as error:
        if scheme != "srt":
            raise SourceUnreadable(f"{source.name}: this FFmpeg was built without {scheme}; use another") from error
    relay = resources.enter_context(SrtRelay.open(source))
    return _open_container(relay.location, source, config)


def _open_container(location: str, source: Source, config: MediaConfig) -> InputContainer:
    try:
        return av.open(
            location,
            mode="r",
            format=source.format,
            options=_open_options(location.partition(":")[0], config),
            metadata_errors="replace",
            timeout=(config.open_timeout_s, config.stall_timeout_s),
        )
    except av.error.ProtocolNotFoundError:
        raise
    except av.error.ExitError as error:
        silence = f"{source.name} sent no video within {config.open_timeout_s:g} s"
        raise SourceNotFound(f"{silence}; check that it is on, or raise open_timeout_s") from error
    except (av.error.InvalidDataError, av.error.EOFError, av.error.DemuxerNotFoundError) as error:
        raise _unreadable(source) from error
    except av.error.PermissionError as error:
        raise SourceUnreadable(f"{source.name} may not be read; check its permissions") from error
    except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError) as error:
        raise SourceNotFound(f"{source.name} refused access ({error.strerror}); check user and password") from error
    except av.error.FFmpegError as error:
        if source.kind is SourceKind.FILE:
            problem = f"{source.name} cannot be opened ({error.strerror})"
            raise SourceUnreadable(f"{problem}; it is damaged, or no video: get it again") from error
        remedy = "check the address and that it is on"
        raise SourceNotFound(f"{source.name} cannot be opened ({error.strerror}); {remedy}") from error


def _unreadable(source: Source) -> SourceError:
    if source.kind is SourceKind.FILE:
        path = Path(source.location)
        try:
            is_empty, is_cut_off = path.stat().st_size == 0, mp4.is_cut_off(path)
        except OSError as error:
            return SourceNotFound(f"{source.name} cannot be read any more ({error.strerror}); check that it is still there")
        if is_empty:
            return SourceUnreadable(f"{source.name} is an empty file; give {ACCEPTED_FORMS}")
        if is_cut_off:
            return SourceTruncated(f"{source.name} ends before its index: the file is incomplete; get it again")
    return SourceUnreadable(f"{source.name} is not a video; give {ACCEPTED_FORMS}")


def _open_options(scheme: str, config: MediaConfig) -> dict[str, str]:
    stall_us = str(int(config.stall_timeout_s * 1e6))
    # Where a header lists the streams, this keeps FFmpeg from decoding a bomb to find out what is in it.
    options = _pixel_limit(config)
    match scheme:
        case "rtsp" | "rtsps":
            # UDP loses packets without a word, and firewalls drop it.
            return options | {"rtsp_transport": "tcp", "timeout": stall_us}
        case "rtmp" | "rtmps":
            # FFmpeg waits this long for a sound track that may never come; it defaults to 5 s.
            return options | {"analyzeduration": "1000000"}
        case "udp":
            return options | {"overrun_nonfatal": "1"}
        case "http" | "https":
            return options | {"rw_timeout": stall_us}
        case _:
            return options


def _pixel_limit(config: MediaConfig) -> dict[str, str]:
    """The decoder's own limit, for a size that grows in mid-stream.  It counts padded pictures, hence the double."""
    return {"max_pixels": str(min(2 * config.max_pixels, 2**31 - 1))}


def _choose_stream(container: InputContainer, source: Source, config: MediaConfig) -> VideoStream:
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    candidates = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not candidates:
        if container.streams.audio:
            raise SourceUnreadable(f"{source.name} has sound but no video; give a source with video")
        raise SourceUnreadable(f"{source.name} has no video in it; give {ACCEPTED_FORMS}")
    best = container.streams.best("video")
    stream = next((stream for stream in candidates if best is not None and stream.index == best.index), candidates[0])
    context = stream.codec_context
    if context is None:
        raise SourceUnreadable(f"{source.name} is in a codec that this FFmpeg cannot decode; convert it to H.264")
    if context.name in TEXT_CODECS:
        raise SourceUnreadable(f"{source.name} is text, not a video; give {ACCEPTED_FORMS}")
    if context.width * context.height > config.max_pixels:
        raise SourceUnreadable(too_large(source.name, context.width, context.height, config.max_pixels))
    return stream


def _is_live(container: InputContainer, source: Source) -> bool:
    if source.kind is SourceKind.FILE:
        return False
    if source.location.partition(":")[0] in LIVE_SCHEMES:
        return True
    if container.duration:
        return False
    # A playlist has a size, whether or not it will go on.
    return "hls" in container.format.name.split(",") or container.size <= 0


def _length_s(container: InputContainer, stream: VideoStream) -> float | None:
    """How long the video says it is; None where it does not say."""
    if container.format.name not in SELF_MEASURED_FORMATS:
        return None
    whole_s = container.duration / av.time_base if container.duration else None
    if stream.duration and stream.time_base:
        length_s = float(stream.duration * stream.time_base)
        return length_s if whole_s is None else min(length_s, whole_s)
    tagged_s = _clock_s(stream.metadata.get("DURATION", ""))
    if tagged_s is not None:
        return tagged_s
    # The container's own length counts its longest stream, which need not be the video.
    return whole_s if len(container.streams) == 1 else None


def _clock_s(text: str) -> float | None:
    """Seconds of a Matroska tag such as 00:00:10.500000000."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _upright(rgb: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Turn and mirror by quarter turns; a matrix in between counts as the nearest one."""
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        rgb = rgb.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
