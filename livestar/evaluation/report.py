"""An evaluation as one page: the numbers beside their floors, then a timeline of every video.

The page holds everything itself: inline SVG, thumbnails as data, no script and no address to fetch from.  Captions, names and
messages come from files and models that nobody vouches for; the template escapes all of them.
"""

from __future__ import annotations

import base64
import io
import logging
import math
from typing import TYPE_CHECKING, NamedTuple

import jinja2
from PIL import Image

from livestar.annotations.types import AnnotatedVideo
from livestar.errors import LiveStarError
from livestar.evaluation.runs import caption_of, responses_in
from livestar.evaluation.table import CAPTION, COLUMNS, OTHERS, ROWS, arrow, counted, floor_score, number, title, with_interval
from livestar.view import clock, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from livestar.evaluation.evaluation import Evaluation
    from livestar.evaluation.runs import VideoRun

logger = logging.getLogger(__name__)

WIDTH = 1000
"""Of a timeline, in SVG units, labels included."""
LEFT = 44
"""Width of the labels."""
PICTURE_HEIGHT = 60
CURVE_HEIGHT = 90
MAX_VIDEOS = 100
"""Videos that are drawn."""
MAX_ILLUSTRATED = 40
"""Videos of which thumbnails are shown."""
MAX_PICTURES = 10
"""Thumbnails of one video."""
MAX_PICTURE_PIXELS = 128
"""Width of a thumbnail's data."""
MAX_ROWS = 300
"""Events of one video in its table."""
MAX_POINTS = 1500
"""Points of one video's curve; of what lies between them the highest is drawn."""
CARDS = (("boundary_f1_1s", "best_at_rate"), ("boundary_f1_2s", "best_at_rate"), ("similarity", "similarity_shuffled"))


class Scale(NamedTuple):
    """From seconds to SVG units."""

    begin_s: float
    per_s: float

    def x(self, time_s: float) -> float:
        """Where a time is drawn, within the timeline."""
        return round(min(max(LEFT + (time_s - self.begin_s) * self.per_s, LEFT), WIDTH), 1)


def render(evaluation: Evaluation, *, pictures: bool = True) -> str:
    """The page.  `pictures` reads thumbnails from the videos, where those are at hand."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("livestar.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )
    scores = evaluation.scores
    floors = scores["floors"]
    assert isinstance(floors, dict)
    columns = [(key, heading) for key, heading in COLUMNS if key in floors]
    texts = evaluation.similarities or tuple(() for _ in evaluation.runs)
    drawn = list(zip(evaluation.runs, texts, strict=True))[:MAX_VIDEOS]
    return environment.get_template("report.html.j2").render(
        title=title(scores),
        caption=CAPTION,
        cards=_cards(scores, floors),
        headings=[with_interval(heading, floors[key]).replace("\n", ", ") for key, heading in columns],
        rows=[
            {
                "name": name + arrow(better),
                "own": number(scores[key]),
                "floors": [number(floor_score(floors, column, key)) for column, _ in columns],
            }
            for key, name, better in ROWS
            if key in scores
        ],
        others=[{"name": name, "own": number(scores[key])} for key, name in OTHERS if scores.get(key) is not None],
        failures=[{"name": printable(one.name), "error": printable(one.error)} for one in evaluation.failures],
        videos=[
            _video(run, similar, with_pictures=pictures and index < MAX_ILLUSTRATED) for index, (run, similar) in enumerate(drawn)
        ],
        num_left_out=len(evaluation.runs) - len(drawn),
        settings=[(key, "–" if value is None else printable(str(value))) for key, value in evaluation.settings.items()],
        width=WIDTH,
        left=LEFT,
    )


def _cards(scores: Mapping[str, object], floors: Mapping[str, Mapping[str, object]]) -> list[dict[str, str]]:
    """The numbers that come first, each with what it must be read beside."""
    names = {key: name for key, name, _ in ROWS}
    cards = []
    for key, beside in CARDS:
        if key not in scores:
            continue
        if beside in floors:
            text = f"best floor at this rate {number(floors[beside][key])}"
        else:
            text = f"shuffled pairs {number(scores.get(beside))}"
        cards.append({"name": names[key], "value": number(scores[key]), "beside": text})
    rate = {"name": "response rate", "value": number(scores["response_rate"]), "beside": f"truth {number(scores['truth_rate'])}"}
    return [*cards, rate]


def _video(run: VideoRun, similarities: Sequence[float], *, with_pictures: bool) -> dict[str, object]:
    """Everything of one video that the template needs, laid out."""
    length_s = max(run.end_s - run.begin_s, 1e-3)
    scale = Scale(run.begin_s, (WIDTH - LEFT) / length_s)
    pictures = _pictures(run, scale) if with_pictures else []
    truth_y = PICTURE_HEIGHT + 6 if pictures else 0
    said_y = truth_y + 22
    top_y = said_y + 26
    curve = _curve(run, scale, top_y)
    bottom_y = top_y + CURVE_HEIGHT if curve["curves"] else said_y + 18
    texts: list[float | None] = list(similarities) or [None] * len(run.events)
    return {
        "name": printable(run.name),
        "summary": f"{length_s:.1f} s, {counted(len(run.frame_times_s), 'frame')}, {counted(len(run.responses), 'response')}",
        "height": bottom_y + 18,
        "truth_y": truth_y,
        "said_y": said_y,
        "top_y": top_y,
        "bottom_y": bottom_y,
        "pictures": pictures,
        "events": [
            {
                "x": scale.x(event.begin_s),
                "width": max(round(scale.x(event.end_s) - scale.x(event.begin_s), 1), 0.5),
                "text": f"{clock(event.begin_s)} to {clock(event.end_s)}: {printable(event.caption)}",
            }
            for event in run.events
        ],
        "responses": [
            {
                "x": scale.x(response.time_s),
                "text": f"{clock(response.time_s)}: {printable(response.text)}",
                "is_first": run.is_first_frame(response.time_s),
            }
            for response in run.responses
        ],
        "ticks": _ticks(run, scale),
        "notes": [printable(note) for note in run.notes],
        "num_events": len(run.events),
        "table": [
            {
                "begin": clock(event.begin_s),
                "end": clock(event.end_s),
                "caption": printable(event.caption),
                "said": printable(caption_of(run, event)) or "–",
                "similarity": number(similarity),
                "num_responses": len(responses_in(run, event)),
            }
            for event, similarity in list(zip(run.events, texts, strict=True))[:MAX_ROWS]
        ],
        **curve,
    }


def _curve(run: VideoRun, scale: Scale, top_y: float) -> dict[str, object]:
    """Lines of the ratio and of the threshold, on a logarithmic axis that holds all but the highest and lowest hundredths."""
    points = [(verdict.time_s, verdict.ratio, verdict.threshold) for verdict in run.verdicts]
    ratios = sorted(ratio for _, ratio, _ in points if ratio is not None and ratio > 0 and math.isfinite(ratio))
    if not ratios:
        return {"curves": [], "limits": [], "low": "", "high": ""}
    inner = ratios[len(ratios) // 100 : len(ratios) - len(ratios) // 100]
    limits = [threshold for _, _, threshold in points if 1e-3 < threshold < 1e3]  # schedules have none to show
    low = min([inner[0], *limits, 0.99])
    high = max([inner[-1], *limits, 1.01])
    span = math.log(high / low)

    def y(value: float) -> float:
        place = math.log(min(max(value, low), high) / low) / span
        return round(top_y + CURVE_HEIGHT * (1 - place), 1)

    every = -(-len(points) // MAX_POINTS)
    curves: list[list[str]] = [[]]
    for start in range(0, len(points), every):
        known = [(ratio, time_s) for time_s, ratio, _ in points[start : start + every] if ratio is not None and ratio > 0]
        if known:
            ratio, time_s = max(known)
            curves[-1].append(f"{scale.x(time_s)},{y(ratio)}")
        elif curves[-1]:
            curves.append([])
    shown = [(scale.x(time_s), y(threshold)) for time_s, _, threshold in points[::every] if 1e-3 < threshold < 1e3]
    bends = [i for i in range(1, len(shown) - 1) if not shown[i - 1][1] == shown[i][1] == shown[i + 1][1]]
    steps = [f"{x},{height}" for x, height in (shown[i] for i in sorted({0, *bends, len(shown) - 1}) if shown)]
    return {
        "curves": [" ".join(curve) for curve in curves if curve],
        "limits": [" ".join(steps)] if steps else [],
        "low": f"{low:.2f}",
        "high": f"{high:.2f}",
    }


def _ticks(run: VideoRun, scale: Scale) -> list[dict[str, object]]:
    """Times below a timeline, about ten of them at round seconds."""
    length_s = run.end_s - run.begin_s
    step = next((n for n in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600) if length_s / n <= 12), 7200)
    first = math.ceil(run.begin_s / step) * step
    times = [first + i * step for i in range(int(max(run.end_s - first, 0) / step) + 1)][:20]
    return [{"x": scale.x(t), "text": clock(t).removesuffix(".0")} for t in times if LEFT + 16 < scale.x(t) < WIDTH - 16]


def _pictures(run: VideoRun, scale: Scale) -> list[dict[str, object]]:
    """Thumbnails at even distances, as wide as there is room; none where the video is not at hand."""
    if not run.source or len(run.frame_times_s) < 1:
        return []
    from livestar.annotations.footage import read_frames

    length_s = max(run.end_s - run.begin_s, 0.1)
    video = AnnotatedVideo(
        source=run.source, events=(), begin_s=run.begin_s, end_s=run.begin_s + length_s, fps=run.pictures_per_s
    )
    found: list[dict[str, object]] = []
    room = (WIDTH - LEFT) / MAX_PICTURES
    try:
        for time_s, image in read_frames(video, fps=min(MAX_PICTURES / length_s, 240.0), image_size=None):
            if len(found) == MAX_PICTURES:
                break
            width = min(room - 4, PICTURE_HEIGHT * image.shape[1] / image.shape[0])
            height = width * image.shape[0] / image.shape[1]
            x = min(scale.x(time_s), WIDTH - width)
            found.append({"x": round(x, 1), "width": round(width, 1), "height": round(height, 1), "uri": _data_uri(image)})
    except LiveStarError as error:
        logger.info("no thumbnails of %s: %s", run.name, error)
        return []
    return found


def _data_uri(image: object) -> str:
    picture = Image.fromarray(image)  # type: ignore[arg-type]  # [H, W, 3] uint8
    picture.thumbnail((MAX_PICTURE_PIXELS, MAX_PICTURE_PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
