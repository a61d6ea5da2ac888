"""Scripted streams as pixels: what is drawn is where the script says, and what is written is what training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from livestar.annotations import read_annotations
from livestar.errors import InvalidRequest
from training.mini import catalogue
from training.mini.catalogue import Catalogue
from training.mini.render import FPS, Renderer
from training.mini.script import Script, at, holds, write
from training.mini.scripted import Order, compose, seed_of, write_streams

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of assets: a red square with a blue left edge that stands for everything, before grey."""
    folder = tmp_path_factory.mktemp("assets")
    square = Image.new("RGBA", (60, 60), (250, 10, 10, 255))
    square.paste((10, 10, 250, 255), (0, 0, 12, 60))
    padded = Image.new("RGBA", (100, 80))
    padded.paste(square, (30, 10))
    (folder / "openclipart").mkdir()
    padded.save(folder / "openclipart" / "square.png")
    (folder / "skimage").mkdir()
    Image.new("RGB", (400, 300), (120, 120, 120)).save(folder / "skimage" / "grey.png")
    return folder


@pytest.fixture(scope="module")
def squares() -> Catalogue:
    things = {
        "walker": {name: {"code": [], "without": ["fluent", "noto", "twemoji"]} for name in ("dog", "cat", "cow")},
        "clipart": [
            {"thing": name, "file": "square.png", "heldout": held} for name in ("dog", "cat", "cow") for held in (False, True)
        ],
    }
    places = [
        {"file": "skimage/grey.png", "kind": "photo", "a": f"a {name}", "at": f"in the {name}", "heldout": held}
        for name in ("room", "hall")
        for held in (False, True)
    ]
    return catalogue.parse(things, {"place": places})


def centre(frame: npt.NDArray[np.uint8]) -> tuple[float, float] | None:
    """Centre of what is not grey, in frame sides."""
    pixels = frame.astype(int)
    coloured = abs(pixels[..., 0] - pixels[..., 2]) > 40
    if coloured.sum() < 50:
        return None
    y, x = np.nonzero(coloured)
    return float(x.mean()) / 256, float(y.mean()) / 256


def alone(script: Script, t: float) -> bool:
    """Whether one actor is seen at `t`, all of it, in full light."""
    there = [actor for actor in script.actors if holds(actor.visible, t)]
    still = not any(begin <= t < end for begin, end in script.shakes)
    return (
        len(there) == 1 and 0.25 < at(there[0].x, t) < 0.75 and at(there[0].scale, t) < 0.4 and still and at(script.light, t) == 1
    )


def test_pixels_are_where_the_script_puts_them(assets: Path, squares: Catalogue) -> None:
    renderer, checked = Renderer(assets), 0
    for seed in range(12):
        script = write(seed, "train", squares)
        for k, frame in enumerate(renderer.frames(script)):
            assert frame.shape == (256, 256, 3) and frame.dtype == np.uint8
            if alone(script, k / FPS):
                actor = next(actor for actor in script.actors if holds(actor.visible, k / FPS))
                seen = centre(frame)
                assert seen == pytest.approx((at(actor.x, k / FPS), at(actor.y, k / FPS)), abs=0.02), (seed, k)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("side", ["left", "right"])
def test_pixels_move_to_the_side_that_the_caption_says(assets: Path, squares: Catalogue, side: str) -> None:
    renderer, checked = Renderer(assets), 0
    for seed in range(40):
        script = write(seed, "train", squares)
        for event in script.events:
            if event.caption.endswith((f"walks to the {side}.", f"runs to the {side}.")):
                during = enumerate(renderer.frames(script))
                seen = [centre(frame) for k, frame in during if event.begin_s <= k / FPS < event.end_s and alone(script, k / FPS)]
                xs = [point[0] for point in seen if point]
                steps = np.diff(xs) * (1 if side == "right" else -1)
                assert (steps > 0.02).all(), (seed, event.caption, xs)
                checked += len(steps)
    assert checked > 10


def test_a_thing_faces_the_way_it_goes(assets: Path, squares: Catalogue) -> None:
    renderer, checked = Renderer(assets), 0
    for seed in range(20):
        script = write(seed, "train", squares)
        for k, frame in enumerate(renderer.frames(script)):
            t = k / FPS
            if alone(script, t):
                actor = next(actor for actor in script.actors if holds(actor.visible, t))
                if at(actor.angle, t) == 0:
                    blue = np.nonzero(frame[..., 2].astype(int) - frame[..., 0] > 60)[1]
                    red = np.nonzero(frame[..., 0].astype(int) - frame[..., 2] > 60)[1]
                    assert (blue.mean() > red.mean()) == holds(actor.rightward, t), (seed, k)
                    checked += 1
    assert checked > 50


def test_it_is_dark_when_the_caption_says_so(assets: Path, squares: Catalogue) -> None:
    renderer, checked = Renderer(assets), 0
    for seed in range(60):
        script = write(seed, "train", squares)
        dark = [event for event in script.events if event.caption == "It gets dark."]
        if dark:
            frames = list(renderer.frames(script))
            last = int(np.ceil(dark[0].end_s * FPS)) - 1
            before = int(np.ceil(dark[0].begin_s * FPS)) - 1
            assert frames[last].mean() < 0.5 * frames[before].mean()
            checked += 1
    assert checked > 3


def test_the_same_seed_gives_the_same_pixels(assets: Path, squares: Catalogue) -> None:
    once, events = compose(5, "train", Renderer(assets), squares)
    again, same_events = compose(5, "train", Renderer(assets), squares)
    first, second = np.stack(list(once)), np.stack(list(again))
    assert (first == second).all() and events == same_events
    assert len(first) == int((events.duration_s or 0) * FPS)


def test_what_is_missing_is_named_with_what_fetches_it(assets: Path, squares: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"grey\.png is missing; python -m training\.mini fetch"):
        next(Renderer(tmp_path).frames(write(0, "train", squares)))


@pytest.mark.slow
def test_streams_are_written_as_training_reads_them_and_gone_on_with(assets: Path, squares: Catalogue, tmp_path: Path) -> None:
    order = Order(assets=assets, folder=tmp_path, split="heldout", first=2, count=3, known=squares)
    (tmp_path / ".heldout-00003.part").mkdir()  # what a killed run leaves
    ticks: list[int] = []
    write_streams(order, processes=2, tick=lambda: ticks.append(1))
    assert len(ticks) == 3
    videos = read_annotations(tmp_path / "events.jsonl")
    assert [Path(video.name).name for video in videos] == ["heldout-00002", "heldout-00003", "heldout-00004"]
    for number, video in enumerate(videos, 2):
        script = write(seed_of(number, "heldout"), "heldout", squares)
        assert video.events == script.events and video.fps == FPS
        assert len(list(Path(video.name).iterdir())) == int(script.duration_s * FPS)
    mark = tmp_path / "heldout-00002" / "0000.jpg"
    mark.write_bytes(b"")
    text = (tmp_path / "events.jsonl").read_text("utf-8")
    write_streams(order, processes=1, tick=lambda: None)
    assert mark.read_bytes() == b"" and (tmp_path / "events.jsonl").read_text("utf-8") == text
