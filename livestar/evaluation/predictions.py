"""Predictions in files, and the truth they are scored against.

Predictions are JSON lines in one of two forms: the released `{"video_id": ..., "result": [["HH:MM:SS", "text"], ...]}`, or the
events that `livestar watch --output` writes.  The truth is the released timestamped text, or any format that
`livestar.annotations` reads.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from livestar.annotations.types import Event
from livestar.errors import InvalidRequest
from livestar.evaluation.runs import EPSILON_S, FrameVerdict, Response, VideoRun

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMESTAMP_LINE = re.compile(r"^Timestamp:\s*([\d:]+)\s*Caption:\s*(.+)$", re.IGNORECASE)
MAX_NAMES = 3
"""Video names that an error lists."""
MAX_FRAMES = 10_000_000
"""Frames of all truth together; more is a wrong duration."""


@dataclass(slots=True, kw_only=True)
class _Prediction:
    """What a file says about one video."""

    line: int
    responses: list[Response] = field(default_factory=list)
    verdicts: list[FrameVerdict] = field(default_factory=list)


def load_runs(predictions: Path, truth: Path, *, fps: float = 1.0) -> list[VideoRun]:
    """Pairs predictions with truth, in the truth's order.

    Where the predictions do not say which frames were watched, those are taken to come at `fps` from 0 to the truth's end.
    Raises `InvalidRequest` naming file and line: lines that cannot be read, videos that are there twice, missing or unknown.
    """
    videos = read_truth(truth, fps=fps)
    said = read_predictions(predictions)
    by_id = _identify(said, videos, predictions, truth)
    return [_merge(run, said[by_id[run.name]]) for run, _ in videos]


def read_truth(path: Path, *, fps: float = 1.0) -> list[tuple[VideoRun, int]]:
    """Every video's events with no responses yet, and the line that it begins on."""
    videos = _read_timestamped(path) if path.suffix.lower() == ".txt" else _read_annotated(path)
    num_frames = 0
    filled = []
    for run, line, begin_s in videos:
        length_s = max(event.end_s for event in run.events) - begin_s
        num_frames += math.ceil(length_s * fps)
        if num_frames > MAX_FRAMES:
            raise InvalidRequest(f"{path}, line {line}: {run.name} lasts {length_s:g} s, which is too long to score; correct it")
        times = tuple(begin_s + k / fps for k in range(math.ceil(length_s * fps - EPSILON_S)))
        filled.append((replace(run, frame_times_s=times, frame_interval_s=1 / fps), line))
    return filled


def _read_timestamped(path: Path) -> list[tuple[VideoRun, int, float]]:
    """The released text: a line with a video's path, then `Timestamp: HH:MM:SS Caption: ...` for the end of every segment.

    As the released metric code reads it, the first segment is the second that its own timestamp names.
    """
    stamped: dict[str, list[tuple[int, str, int]]] = {}
    began: dict[str, int] = {}
    name = ""
    for number, line in _lines(path):
        if line.lower().endswith(".mp4"):
            name = Path(line).stem
            if name in stamped:
                raise InvalidRequest(f"{path}, line {number}: video {name!r} is there twice; remove one")
            stamped[name], began[name] = [], number
            continue
        match = TIMESTAMP_LINE.match(line)
        if match is None:
            raise InvalidRequest(f"{path}, line {number}: expected a video's path or 'Timestamp: HH:MM:SS Caption: ...'")
        if not name:
            raise InvalidRequest(f"{path}, line {number}: a caption before any video; name the video (NAME.mp4) on a line above")
        stamped[name].append((int(parse_time_s(match[1], f"{path}, line {number}")), match[2], number))
    if not stamped:
        raise InvalidRequest(f"{path} names no video; expected a line NAME.mp4 and captions below it")
    runs = {
        name: VideoRun(name=name, events=_segments(path, name, began[name], rows), frame_times_s=(), responses=())
        for name, rows in stamped.items()
    }
    return [(run, began[name], 0.0) for name, run in runs.items()]


def _segments(path: Path, name: str, line: int, rows: list[tuple[int, str, int]]) -> tuple[Event, ...]:
    if not rows:
        raise InvalidRequest(f"{path}, line {line}: video {name!r} has no captions; add them or remove it")
    rows = sorted(rows, key=lambda row: row[0])
    events = []
    for i, (end, caption, number) in enumerate(rows):
        begin = end if i == 0 else rows[i - 1][0] + 1
        if begin > end:
            raise InvalidRequest(f"{path}, line {number}: video {name!r} has two captions that end at {end} s; correct one")
        events.append(Event(begin_s=float(begin), end_s=float(end + 1), captions=(caption,)))
    return tuple(events)


def _read_annotated(path: Path) -> list[tuple[VideoRun, int, float]]:
    from livestar.annotations.read import read_annotations

    videos = []
    for video in read_annotations(path):
        if not video.events:
            raise InvalidRequest(f"{path}, line {video.line}: {video.name} has no events; add them or remove it")
        run = VideoRun(name=Path(video.name).stem, events=video.events, frame_times_s=(), responses=(), source=video.source)
        videos.append((run, video.line, video.begin_s))
    return videos


def read_predictions(path: Path) -> dict[str, _Prediction]:
    """What a file says about every video, by the id that it uses."""
    said: dict[str, _Prediction] = {}
    is_events: bool | None = None
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{where} is not JSON ({error}); correct or remove it") from error
        if not isinstance(record, dict):
            raise InvalidRequest(f"{where}: expected an object, got {type(record).__name__}")
        if is_events is None:
            is_events = "video_id" not in record
        if is_events:
            _take_event(said, record, number, where)
        else:
            _take_result(said, record, number, where)
    return said


def _take_result(said: dict[str, _Prediction], record: dict[str, object], line: int, where: str) -> None:
    name, result = record.get("video_id"), record.get("result")
    if not isinstance(name, str) or not name or not isinstance(result, list):
        raise InvalidRequest(f'{where}: expected {{"video_id": "...", "result": [["HH:MM:SS", "text"], ...]}}')
    if name in said:
        raise InvalidRequest(f"{where}: video {name!r} is there already, on line {said[name].line}; remove one")
    prediction = said[name] = _Prediction(line=line)
    for item in result:
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str)):
            raise InvalidRequest(f'{where}: a result is {_short(item)}; expected ["HH:MM:SS", "text"]')
        prediction.responses.append(Response(parse_time_s(item[0], where), item[1]))
    prediction.responses.sort(key=lambda response: response.time_s)  # stable: as many as were said in a second, in their order


def _take_event(said: dict[str, _Prediction], record: dict[str, object], line: int, where: str) -> None:
    name, kind, time_s = record.get("stream_id"), record.get("type"), record.get("time_s")
    if not isinstance(name, str) or not name or not isinstance(kind, str):
        raise InvalidRequest(
            f'{where} is neither a prediction ("video_id" and "result") nor an event of livestar watch ("type" and "stream_id")'
        )
    if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not 0 <= time_s < math.inf:
        raise InvalidRequest(f"{where}: time_s is {_short(time_s)}; expected seconds from 0")
    prediction = said.setdefault(name, _Prediction(line=line))
    if kind == "caption":
        text = record.get("text")
        if not isinstance(text, str):
            raise InvalidRequest(f"{where}: text is {_short(text)}; expected a string")
        prediction.responses.append(Response(float(time_s), text))
    elif kind == "verdict":
        prediction.verdicts.append(_verdict(record, float(time_s), where))
    elif kind == "end" and record.get("error") is not None:
        raise InvalidRequest(f"{where}: stream {name!r} ended early ({_short(record['error'])}); watch it again")
    times = prediction.verdicts if kind == "verdict" else prediction.responses if kind == "caption" else []
    if len(times) > 1 and times[-1].time_s < times[-2].time_s - EPSILON_S:
        raise InvalidRequest(
            f"{where}: stream {name!r} goes back in time, so two streams have this id; write one file for each video"
        )


def _verdict(record: dict[str, object], time_s: float, where: str) -> FrameVerdict:
    numbers: dict[str, float | None] = {}
    for key in ("perplexity", "reference_perplexity", "ratio", "threshold"):
        value = record.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidRequest(f"{where}: {key} is {_short(value)}; expected a number or null")
        numbers[key] = None if value is None else float(value)
    return FrameVerdict(
        time_s=time_s,
        is_response=record.get("decision") == "respond",
        perplexity=numbers["perplexity"],
        reference_perplexity=numbers["reference_perplexity"],
        ratio=numbers["ratio"],
        threshold=numbers["threshold"] or 0.0,
    )


def _identify(said: dict[str, _Prediction], videos: list[tuple[VideoRun, int]], predictions: Path, truth: Path) -> dict[str, str]:
    """For every video of the truth the id that the predictions use: its name, or what `livestar watch` calls such a file."""
    from livestar.media.source import stream_id_for

    ids: dict[str, str] = {}
    used: set[str] = set()
    missing = []
    for run, line in videos:
        if run.name in ids:
            raise InvalidRequest(f"{truth}, line {line}: video {run.name!r} is there twice; remove one")
        choices = [name for name in (run.name, stream_id_for(f"{run.name}.mp4", ())) if name in said and name not in used]
        if choices:
            ids[run.name] = choices[0]
            used.add(choices[0])
        else:
            missing.append(f"{run.name!r} of {truth}, line {line}")
            ids[run.name] = ""
    for name, prediction in said.items():
        if name not in used:
            raise InvalidRequest(
                f"{predictions}, line {prediction.line}: video {name!r} is not in {truth}; remove it, or give the truth it is in"
            )
    if missing:
        more = f" and {len(missing) - MAX_NAMES} more" if len(missing) > MAX_NAMES else ""
        raise InvalidRequest(
            f"{predictions} says nothing about {', '.join(missing[:MAX_NAMES])}{more}; give every video a line, with an empty "
            "result where nothing was said"
        )
    return ids


def _merge(run: VideoRun, prediction: _Prediction) -> VideoRun:
    verdicts = tuple(prediction.verdicts)
    run = replace(run, responses=tuple(prediction.responses), verdicts=verdicts)
    if len(verdicts) < 2:
        return run
    times = tuple(verdict.time_s for verdict in verdicts)
    interval_s = (times[-1] - times[0]) / (len(times) - 1)
    return replace(run, frame_times_s=times, frame_interval_s=interval_s or run.frame_interval_s)


def parse_time_s(text: str, where: str) -> float:
    """HH:MM:SS, MM:SS or SS, as the released code reads it; the seconds may have decimals."""
    parts = text.strip().split(":")
    is_time = len(parts) <= 3 and re.fullmatch(r"(\d{1,6}:)*\d{1,9}(\.\d{1,9})?", text.strip(), re.ASCII)
    if not is_time:
        raise InvalidRequest(f"{where}: the time is {_short(text)}; expected HH:MM:SS")
    return math.fsum(float(part) * 60.0**i for i, part in enumerate(reversed(parts)))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except FileNotFoundError:
        raise InvalidRequest(f"there is no file {str(path)!r}; check its name") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8 text; is it the right file?") from error
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
