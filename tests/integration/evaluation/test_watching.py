"""Watching annotated videos with a real engine: parts, policies, failures, teacher forcing and calibration."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from livestar.annotations.part import parse_part
from livestar.annotations.types import AnnotatedVideo
from livestar.config import GateConfig, SamplingConfig, StreamConfig
from livestar.engine.admission import make_prompt
from livestar.errors import InvalidConfig, LiveStarError
from livestar.evaluation.calibration import calibrate, calibrate_threshold
from livestar.evaluation.footage import Footage, take_part
from livestar.evaluation.likelihood import score_captions, score_likelihood
from livestar.evaluation.model_evaluation import evaluate_model
from livestar.evaluation.policies import AtFrames, Gate, Interval
from livestar.evaluation.runs import response_rate
from livestar.evaluation.watching import run_policy, video_names, watch
from livestar.reference import PlainCache
from livestar.session import Checkpoint
from tests.unit.evaluation.making import event

pytestmark = pytest.mark.integration

STREAM = StreamConfig(sampling=SamplingConfig(max_new_tokens=6))


def footage(checkpoint: Checkpoint, *videos: AnnotatedVideo, fps: float = 2.0, **more: int) -> Footage:
    return Footage(videos, fps=fps, image_size=checkpoint.model.config.vision.image_size, **more)


def test_a_part_is_watched_with_a_context_of_its_own(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    part = take_part(film, parse_part("5s:10s"))
    (run,) = run_policy(checkpoint, [part], fps=2.0, stream=STREAM)
    assert run.frame_times_s[0] >= 5.0
    assert run.frame_times_s[-1] < 10.0
    assert len(run.frame_times_s) == 10
    assert [(e.begin_s, e.end_s) for e in run.events] == [(5, 9), (9, 10)]
    assert run.responses[0].time_s == run.frame_times_s[0]  # the first frame is always spoken on
    assert run.verdicts[0].ratio is None


def test_shares_are_of_the_measured_length(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    part = take_part(film, parse_part("0.5:1"))
    assert part.begin_s == pytest.approx(19.2 / 2, abs=0.2)
    (run,) = run_policy(checkpoint, [part], fps=1.0, stream=STREAM)
    assert len(run.frame_times_s) == 10


def test_several_at_a_time_come_out_as_one_at_a_time(
    checkpoint: Checkpoint, film: AnnotatedVideo, pictures: AnnotatedVideo
) -> None:
    videos = [take_part(film, parse_part(part)) for part in ("0s:5s", "4s:9s", "8s:13s")] + [pictures]
    together = run_policy(checkpoint, videos, Gate(1.2), fps=2.0, stream=STREAM, num_streams=3)
    apart = [run_policy(checkpoint, [video], Gate(1.2), fps=2.0, stream=STREAM)[0] for video in videos]
    assert [run.name for run in together] == ["french_gp_1906", "french_gp_1906-2", "french_gp_1906-3", "room"]
    for one, other in zip(together, apart, strict=True):
        assert one.frame_times_s == other.frame_times_s
        assert [(r.time_s, r.text) for r in one.responses] == [(r.time_s, r.text) for r in other.responses]


def test_a_schedule_speaks_on_its_frames_whatever_the_model_thinks(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    part = take_part(film, parse_part("0s:8s"))
    (metronome,) = run_policy(checkpoint, [part], Interval(2.0), fps=2.0, stream=STREAM)
    times = metronome.frame_times_s
    assert [response.time_s for response in metronome.responses] == [times[i] for i in (0, 4, 8, 12)]
    (chosen,) = run_policy(checkpoint, [part], AtFrames({"french_gp_1906": {4, 5}}), fps=2.0, stream=STREAM)
    assert [response.time_s for response in chosen.responses] == [times[i] for i in (0, 3, 4)]
    assert all(math.isfinite(verdict.threshold) for verdict in chosen.verdicts)


def test_pictures_are_sampled_at_the_rate_of_watching(checkpoint: Checkpoint, pictures: AnnotatedVideo) -> None:
    (run,) = run_policy(checkpoint, [pictures], fps=2.0, stream=STREAM)
    assert run.frame_times_s == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)


def test_frames_are_kept_while_there_is_room(checkpoint: Checkpoint, pictures: AnnotatedVideo) -> None:
    size = checkpoint.model.config.vision.image_size
    kept = footage(checkpoint, pictures)
    once, again = ([frame.pts_s for frame in kept.frames(0)] for _ in range(2))
    assert once == again
    assert len(kept._kept[0]) == 6
    too_small = footage(checkpoint, pictures, max_kept_bytes=size * size * 3 * 4)
    assert [frame.pts_s for frame in too_small.frames(0)] == once
    assert too_small._kept == {}
    assert too_small._room == size * size * 3 * 4


def test_a_video_that_fails_is_noted_and_the_others_go_on(
    checkpoint: Checkpoint, pictures: AnnotatedVideo, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = AnnotatedVideo(source=str(tmp_path / "broken.mp4"), events=pictures.events)
    gone = AnnotatedVideo(source=str(tmp_path / "gone.mp4"), events=pictures.events)
    watched = watch(checkpoint, footage(checkpoint, broken, pictures, gone), stream=STREAM, num_streams=1)
    assert [run.name for run in watched.runs] == ["room"]
    assert [failure.name for failure in watched.failures] == ["broken", "gone"]
    assert watched.num_frames == 6
    assert watched.frames_per_s > 0
    with pytest.raises(LiveStarError, match="broken: "):
        run_policy(checkpoint, [broken], fps=2.0, stream=STREAM)


def test_settings_that_cannot_work_are_refused(checkpoint: Checkpoint, pictures: AnnotatedVideo) -> None:
    with pytest.raises(InvalidConfig, match="streams is 0"):
        watch(checkpoint, footage(checkpoint, pictures), num_streams=0)
    with pytest.raises(InvalidConfig, match="give seconds above 0"):
        Interval(0.0)


def test_names_of_videos(pictures: AnnotatedVideo) -> None:
    listed = replace(pictures, source=("a/yard/1.png", "a/yard/2.png"))
    assert video_names([pictures, pictures, listed, listed]) == ["room", "room-2", "yard", "yard-2"]


@pytest.mark.parametrize("gate", ["compat", "scam", "leaf"])
@pytest.mark.parametrize("keep_captions", [True, False])
def test_teacher_forcing_equals_the_whole_sequence_at_once(
    checkpoint: Checkpoint, film: AnnotatedVideo, gate: str, keep_captions: bool
) -> None:
    """Each caption scored with a cache, against one plain pass over the very rows that its context consists of."""
    video = replace(
        film, begin_s=2.0, end_s=11.0, events=(event(2, 5, "A car."), event(6, 9, "The crowd waits."), event(9, 11, "Cars."))
    )
    stream = replace(STREAM, gate=GateConfig(name=gate, keep_captions=keep_captions))  # type: ignore[arg-type]
    seen = footage(checkpoint, video, fps=1.0)
    scores = score_captions(checkpoint, seen, 0, stream)
    assert len(scores) == 3
    for i, score in enumerate(scores):
        assert score.perplexity == pytest.approx(plain_perplexity(checkpoint, seen, i, gate, keep_captions), rel=1e-4)


@torch.inference_mode()
def plain_perplexity(checkpoint: Checkpoint, seen: Footage, index: int, gate: str, keep_captions: bool) -> float:
    """By the template's own text: frames of all events so far, earlier captions where they are kept, then the caption."""
    model, video = checkpoint.model, seen.videos[0]
    prompt = make_prompt(model.config, checkpoint.tokenizer)
    language = model.language_model
    pieces: list[torch.Tensor] = [language.embed(torch.tensor(prompt.opening()))]

    def add(rows: tuple[int, ...]) -> None:
        if rows:
            pieces.append(language.embed(torch.tensor(rows)))

    told: str | None = None
    is_first = True
    for frame in seen.frames(0):
        if frame.pts_s >= video.events[index].end_s:
            break
        current = next((e for e in video.events if e.begin_s <= frame.pts_s < e.end_s), None)
        if current is not None and told is not None and current.caption != told:
            if keep_captions:
                caption = prompt.caption(told)
                if gate == "leaf":
                    add(caption.rows + prompt.turn_end)
                else:
                    add(prompt.turn_end + caption.rows + prompt.turn_end + prompt.user_header)
            told = None
        line = prompt.frame_line(frame.index, 0)
        first_visual = next(i for i, row in enumerate(line) if row < 0)
        num_visual = sum(row < 0 for row in line)
        if gate == "leaf" and not is_first:
            add(prompt.user_header)
        add(line[:first_visual])
        pieces.append(model.encode_frames(torch.from_numpy(frame.image).unsqueeze(0))[0])
        add(line[first_visual + num_visual :])
        if gate == "leaf":
            add(prompt.turn_end)
        is_first = False
        if current is not None:
            told = current.caption
    caption = prompt.caption(video.events[index].caption)
    if gate != "leaf":
        add(prompt.turn_end)
    add(caption.rows)
    embedded = torch.cat(pieces)
    hidden = language(embedded, torch.arange(len(embedded)), PlainCache())
    logits = language.logits(hidden[-len(caption.targets) :])
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(caption.targets)).exp())


def test_perplexity_of_a_long_video_stays_within_the_budget(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    small = replace(STREAM, retention=replace(STREAM.retention, kv_tokens=400))
    scores = score_likelihood(checkpoint, footage(checkpoint, film, fps=3.0), small)
    assert scores["perplexity"] is not None
    assert scores["perplexity"] > 1
    assert scores["token_accuracy"] is not None
    assert 0 <= scores["token_accuracy"] <= 1


def test_footage_without_a_seen_event_has_no_perplexity(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    unseen = replace(film, begin_s=16.0, end_s=18.0)
    assert score_likelihood(checkpoint, footage(checkpoint, unseen)) == {"perplexity": None, "token_accuracy": None}


@pytest.mark.slow
def test_a_calibrated_threshold_gives_its_rate_when_watched_with(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    seen = footage(checkpoint, film, fps=3.0)
    found = calibrate(checkpoint, seen, response_rate=0.2, stream=STREAM)
    runs = run_policy(checkpoint, [film], Gate(found.threshold), fps=3.0, stream=STREAM)
    assert response_rate(runs) == pytest.approx(found.response_rate)
    assert found.response_rate == pytest.approx(0.2, abs=0.07)


@pytest.mark.slow
def test_training_can_ask_for_the_truths_rate(checkpoint: Checkpoint, pictures: AnnotatedVideo) -> None:
    assert calibrate_threshold(checkpoint, [pictures], response_rate=None, fps=4.0) > 0


def test_the_same_captioner_on_floors_frames(checkpoint: Checkpoint, film: AnnotatedVideo) -> None:
    part = take_part(film, parse_part("0s:8s"))
    stages: list[str] = []
    evaluation = evaluate_model(
        checkpoint,
        footage(checkpoint, part),
        Gate(1.2),
        settings={},
        stream=STREAM,
        num_streams=2,
        num_workers=1,
        text_floors=True,
        on_stage=stages.append,
    )
    floors = evaluation.scores["floors"]
    assert isinstance(floors, dict)
    assert stages == ["watching", "perplexity", "captioner_interval", "captioner_random"]
    for name, timed in (("captioner_interval", "metronome"), ("captioner_random", "random")):
        assert floors[name]["response_rate"] == pytest.approx(floors[timed]["response_rate"])
    assert floors["captioner_interval"]["boundary_f1_1s"] == pytest.approx(floors["metronome"]["boundary_f1_1s"])
