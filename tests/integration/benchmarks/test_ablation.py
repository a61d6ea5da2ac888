"""The ablation on streams drawn here: its parts against the project's own scores and training, and the whole command once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ablation
from benchmarks.ablation_contests import POLICIES, TOLERANCE
from benchmarks.ablation_scores import F1_1S, F1_2S, RATE, SIMILARITY, TIM_REDUN, compare, count, score
from benchmarks.ablation_turns import frames_above, threshold_at, turn_scores
from benchmarks.ablation_watching import Trunk
from livestar.annotations.read import read_annotations
from livestar.annotations.types import Event
from livestar.config import GateConfig, RetentionConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import make_prompt
from livestar.errors import InvalidConfig
from livestar.evaluation.footage import Footage
from livestar.evaluation.runs import Response, VideoRun
from livestar.evaluation.scores import timing_scores
from livestar.evaluation.similarity import SentenceModel, score_similarity
from livestar.model.demo import write_demo_checkpoint
from livestar.session import Checkpoint, load_checkpoint
from tests.fakes.pictures import picture
from training.batch import Batch
from training.sequence import Clip, SequenceBuilder
from training.step import SequenceModel

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CAPTIONS = ("A red square drifts by.", "The waves turn blue.", "A grey box stands still.", "The picture goes dark.")
SCENE_FRAMES = 4
FPS = 2


def draw(folder: Path, first: int, num_videos: int, num_frames: int = 12) -> Path:
    """Videos of scenes of two seconds, as folders of pictures with an events.jsonl."""
    lines = []
    for number in range(first, first + num_videos):
        name = f"stream-{number}"
        (folder / name).mkdir(parents=True)
        for index in range(num_frames):
            shown = picture(number, index, 64, scene_frames=SCENE_FRAMES)
            Image.fromarray(shown).save(folder / name / f"{index + 1:03d}.png")
        events = [
            {"begin": k * SCENE_FRAMES / FPS, "end": (k + 1) * SCENE_FRAMES / FPS, "caption": [CAPTIONS[(number + k) % 4]]}
            for k in range(num_frames // SCENE_FRAMES)
        ]
        lines.append(json.dumps({"video": name, "fps": FPS, "duration": num_frames / FPS, "events": events}))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `--data` wants it.  Not to be written to."""
    folder = tmp_path_factory.mktemp("streams")
    draw(folder / "scripted-train", 0, 2)
    draw(folder / "scripted-calm", 10, 1)
    draw(folder / "scripted-calm-val", 20, 1)
    draw(folder / "scripted-calm-heldout", 30, 2)
    return folder


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model with random weights."""
    directory = tmp_path_factory.mktemp("checkpoint") / "demo"
    write_demo_checkpoint(directory)
    return load_checkpoint(directory, device="cpu")


def make_run(name: str, begins: list[float], spoken: list[float], text: str = "A red square drifts by.") -> VideoRun:
    """Twenty seconds at 1 fps, spoken on at given times."""
    ends = [*begins[1:], 20.0]
    events = tuple(
        Event(begin_s=b, end_s=e, captions=(CAPTIONS[i % 4],)) for i, (b, e) in enumerate(zip(begins, ends, strict=True))
    )
    times = tuple(float(t) for t in range(20))
    return VideoRun(name=name, events=events, frame_times_s=times, responses=tuple(Response(t, text) for t in spoken))


RUNS = [
    make_run("one", [0, 4, 9, 15], [0, 4, 10, 11, 19]),
    make_run("two", [0, 3, 12], [0, 5]),
    make_run("three", [0, 10], [0, 1, 2, 3, 12], text="The waves turn blue."),
]


def test_scores_summed_over_videos_are_those_of_the_evaluation():
    embedder = SentenceModel()
    tally = count(RUNS, embedder)
    expected = timing_scores(RUNS)
    assert score(tally, F1_1S) == pytest.approx(expected["boundary_f1_1s"])
    assert score(tally, F1_2S) == pytest.approx(expected["boundary_f1_2s"])
    assert score(tally, TIM_REDUN) == pytest.approx(expected["tim_redun"])
    assert score(tally, RATE) == pytest.approx(expected["response_rate"])
    assert score(tally, SIMILARITY) == pytest.approx(score_similarity(RUNS, embedder)["similarity"])
    assert 0 < score(tally, F1_1S) < score(tally, F1_2S) < 1


def test_what_is_better_on_every_video_wins_and_what_is_the_same_does_not():
    begins = [0.0, 4.0, 9.0, 15.0]
    good = count([make_run(str(i), begins, begins) for i in range(12)], None)
    bad = count([make_run(str(i), begins, [0.0, 2.0, 6.5, 12.0, 12.5]) for i in range(12)], None)
    first = compare([good], [bad], F1_1S)
    assert first.winner == 0
    assert compare([bad], [good], F1_1S).winner == 1
    assert first.sentence(("this", "that")).startswith("this wins in boundary F1 ±1 s (1.000 against 0.000, difference +1.000")
    assert compare([good], [bad], TIM_REDUN).winner == 0  # less of it is better
    assert compare([bad], [good], TIM_REDUN).winner == 1
    same = compare([good], [good], F1_1S)
    assert same.winner is None
    assert same.sentence(("this", "that")).startswith("in boundary F1 ±1 s no difference was found")


def test_a_difference_that_hangs_on_few_videos_is_no_win():
    begins = [0.0, 4.0, 9.0, 15.0]
    some = [make_run(str(i), begins, begins if i < 5 else [0.0, 2.0]) for i in range(12)]
    others = [make_run(str(i), begins, begins if i >= 8 else [0.0, 2.0]) for i in range(12)]
    found = compare([count(some, None)], [count(others, None)], F1_1S)
    assert found.first > found.second
    assert found.low < 0 < found.high
    assert found.winner is None


def test_a_threshold_lets_as_many_frames_through_as_it_is_asked_to():
    scores = [[0.9, 0.1, 0.4, 0.8], [0.2, 0.3, 0.7, 0.6, 0.5]]
    threshold = threshold_at(scores, 3 / 7)
    assert [sorted(frames_above(video, threshold)) for video in scores] == [[1, 4], [1, 3, 4]]
    assert [sorted(frames_above(video, threshold_at(scores, 0.0))) for video in scores] == [[1], [1]]
    assert sum(len(frames_above(video, threshold_at(scores, 1.0))) for video in scores) == 9


def test_the_end_of_turn_score_is_what_training_learns(demo: Checkpoint, streams: Path):
    videos = read_annotations(streams / "scripted-calm-heldout" / "events.jsonl")
    footage = Footage(videos, fps=FPS, image_size=demo.model.config.vision.image_size)
    stream = StreamConfig(
        gate=GateConfig(name="scam", keep_captions=False),
        retention=RetentionConfig(name="window"),
        sampling=SamplingConfig(max_new_tokens=8),
    )
    found = turn_scores(demo, footage, 1, stream)

    images = torch.stack([torch.from_numpy(frame.image) for frame in footage.frames(1)])
    num_frames = len(images)
    builder = SequenceBuilder(make_prompt(demo.model.config, demo.tokenizer), turn_weight=1.0)
    silent, spoken = (
        [Clip(0, num_frames, "x")],  # all frames but the first go on
        [Clip(i, 1, "x") for i in range(num_frames)],  # every frame ends the turn
    )
    nlls = []
    with torch.no_grad():
        for clips in (silent, spoken):
            batch = Batch.pack([builder.build(range(1, num_frames + 1), clips, [])], [demo.model.features(images)])
            nlls.append(SequenceModel(demo.model).score(batch)[0])
    expected = nlls[0] - nlls[1]
    assert found[1:] == pytest.approx(expected[1:].tolist(), abs=1e-4)
    assert np.ptp(found[1:]) > 1e-2  # the frames do make a difference


def test_the_end_of_turn_score_is_refused_where_captions_stay_in_sight(demo: Checkpoint, streams: Path):
    videos = read_annotations(streams / "scripted-calm-heldout" / "events.jsonl")
    footage = Footage(videos, fps=FPS, image_size=demo.model.config.vision.image_size)
    for gate in (GateConfig(name="scam", keep_captions=True), GateConfig(name="leaf", keep_captions=False)):
        with pytest.raises(InvalidConfig, match="use the gate scam"):
            turn_scores(demo, footage, 0, StreamConfig(gate=gate))


def test_a_picture_is_looked_at_once_however_often_it_is_shown(demo: Checkpoint):
    images = torch.stack([torch.from_numpy(picture(1, i, demo.model.config.vision.image_size)) for i in (0, 9, 0)])
    calls: list[int] = []
    plain = demo.model.features

    def counted(batch: torch.Tensor) -> torch.Tensor:
        calls.append(len(batch))
        return plain(batch)

    demo.model.features = counted  # type: ignore[method-assign,assignment]
    try:
        trunk = Trunk(demo.model)
        assert trunk.lend(demo.model)
        assert torch.allclose(demo.model.features(images), plain(images), atol=1e-5)
        assert torch.equal(demo.model.features(images[[1]]), trunk.features(images)[[1]])
        assert calls == [2]
    finally:
        del demo.model.features


def test_one_command_trains_watches_compares_and_reports(
    streams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(streams), "--steps", "4", "--threads", "1", "--seed", "3", "--set", "optim.learning_rate=1e-3"]
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    ablation.main([*options, *folders])
    report = (tmp_path / "out" / "ablation.md").read_text(encoding="utf-8")
    assert report in capsys.readouterr().out
    values = json.loads((tmp_path / "out" / "ablation.json").read_text(encoding="utf-8"))

    masks = values["masks"]
    assert [(row["mask"], row["steps"]) for row in masks["trained"]] == [("leaf", 4), ("terminal", 4), ("causal", 4)]
    assert len({row["own_mask_loss"] for row in masks["trained"]}) == 3  # the masks did differ
    assert [row["name"] for row in masks["contestants"]] == ["leaf", "terminal", "causal"]
    assert [row["name"] for row in masks["not_chosen"]] == ["causal"]
    assert {row["how"].split(",")[0] for row in masks["not_chosen"] + masks["contestants"]} == {"scam", "compat"}
    assert len(masks["sentences"]) == 3
    chosen, refused = masks["contestants"][2], masks["not_chosen"][0]
    assert chosen["validation_f1"] >= refused["validation_f1"]

    timing = values["timing"]
    assert [row["name"] for row in timing["contestants"]] == list(POLICIES)
    assert timing["truth_rate"] == pytest.approx(4 / 22)  # two boundaries in eleven frames, twice
    for row in timing["contestants"][1:]:
        # it may be more: where a caption of this hardly trained model comes out empty, the engine tries the next frame
        assert row["response_rate"] >= (1 - TOLERANCE) * timing["truth_rate"]
    assert len(timing["curve"]) == 5
    for sentence in masks["sentences"] + timing["sentences"] + timing["curve_sentences"]:
        assert sentence in report
        assert "wins in" in sentence or "no difference was found" in sentence
    assert values["settings"]["heldout_videos"] == "2, with 6 events"

    # what is trained is kept, and another captioner can be asked
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/model/*.safetensors")}
    assert len(before) == 3
    few = [
        "--base",
        str(tmp_path / "work" / "base"),
        "--videos",
        "1",
        "--validation-videos",
        "1",
        "--model",
        str(tmp_path / "work" / "terminal" / "model"),
    ]
    ablation.main([*options, *folders, *few, "--name", "again"])
    assert before == {path: path.stat().st_mtime_ns for path in before}
    again = json.loads((tmp_path / "out" / "again.json").read_text(encoding="utf-8"))
    assert again["masks"]["trained"] == masks["trained"]
    assert again["settings"]["heldout_videos"] == "1, with 3 events"
    assert "`terminal/model`, given with --model" in (tmp_path / "out" / "again.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match=r"holds a run with another optim\.learning_rate"):
        ablation.main([*options[:-2], *folders])


def test_a_folder_without_streams_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no scripted-train"):
        ablation.main(["--data", str(tmp_path), "--work", str(tmp_path / "work"), "--out", str(tmp_path)])
