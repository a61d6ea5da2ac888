"""Windows, clips and batches: true to the annotation, and the same for the same seed, epoch and index."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from livestar.annotations.types import AnnotatedVideo, Event
from livestar.errors import InvalidConfig
from training.dataset import Clip, StreamDataset, Window
from training.feature_file import FeatureWriter, VideoFeatures

pytestmark = pytest.mark.integration

Spans = Sequence[tuple[float, float, str]]
Video = tuple[AnnotatedVideo, VideoFeatures]
MakeVideo = Callable[..., Video]


@pytest.fixture
def make(tmp_path: Path) -> MakeVideo:
    """Makes a video of so many frames, one per `step_s`; every feature of frame k is k."""
    made = 0

    def make_video(num_frames: int, spans: Spans, *, step_s: float = 1.0) -> Video:
        nonlocal made
        made += 1
        with FeatureWriter(tmp_path / f"{made}.safetensors", "key") as writer:
            numbers = torch.arange(num_frames, dtype=torch.float32)
            writer.append(numbers.view(-1, 1, 1).expand(-1, 2, 4), [step_s * number for number in range(num_frames)])
            features = writer.commit()
        events = tuple(Event(begin_s=b, end_s=e, captions=tuple(text.split("|"))) for b, e, text in spans)
        return AnnotatedVideo(source=f"{made}.mp4", events=events), features

    return make_video


def num_tokens(num_frames: int, captions: Sequence[tuple[int, int]]) -> int:
    """Ten rows for the opening, five for a frame, and a copy of the caption behind each frame of a clip."""
    return 10 + 5 * num_frames + sum(copies * tokens for copies, tokens in captions)


def dataset(*videos: Video, max_frames: int = 8, max_batch_tokens: int = 10_000, **options: float) -> StreamDataset:
    return StreamDataset(
        videos,
        max_frames=max_frames,
        max_batch_tokens=max_batch_tokens,
        num_tokens=num_tokens,
        count_tokens=lambda text: len(text.split()),
        max_batch_sequences=int(options.get("max_batch_sequences", 0)),
        windows_per_video=options.get("windows_per_video", 0.0),
        seed=int(options.get("seed", 0)),
    )


def test_a_short_video_is_one_sample_with_its_clips_and_gaps(make):
    video = make(6, [(0, 2, "A dog|The dog"), (3, 5.5, "A cat")])
    data = dataset(video)
    sample = data.sample(0, 0)
    assert data.windows(0) == [Window(0, 0, 6)]
    assert torch.equal(sample.features[:, 1, 3], torch.arange(6.0))
    assert sample.frame_numbers == (1, 2, 3, 4, 5, 6)
    assert sample.times_s == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert sample.clips == (
        Clip(first_frame=0, num_frames=2, captions=("A dog", "The dog")),
        Clip(first_frame=3, num_frames=3, captions=("A cat",)),
    )
    assert data.length(0, 0) == 10 + 6 * 5 + 2 * 2 + 3 * 2


def test_windows_of_a_long_video_hold_what_the_annotation_says_there(make):
    video = make(100, [(b, b + 7, f"Event {b}") for b in range(0, 98, 7)])
    data = dataset(video)
    for epoch in range(3):
        windows = data.windows(epoch)
        assert len(windows) in (12, 13)  # 100 / 8 = 12.5
        for index, window in enumerate(windows):
            sample = data.sample(epoch, index)
            assert window.num_frames == 8
            assert sample.features[:, 0, 0].tolist() == list(range(window.first, window.first + 8))
            assert sample.times_s == tuple(float(number) for number in range(window.first, window.first + 8))
            assert sample.frame_numbers == tuple(range(1, 9))
            covered = [place for clip in sample.clips for place in range(clip.first_frame, clip.first_frame + clip.num_frames)]
            assert covered == [place for place in range(8) if window.first + place < 98]
            for clip in sample.clips:
                assert clip.captions == (f"Event {(window.first + clip.first_frame) // 7 * 7}",)


def test_every_frame_is_seen_about_as_often(make):
    data = dataset(make(50, [(0, 50, "All")]))
    seen = Counter(w.first + place for epoch in range(400) for w in data.windows(epoch) for place in range(w.num_frames))
    assert set(seen) == set(range(50))
    assert min(seen.values()) > 0.5 * 400
    assert sum(seen.values()) == pytest.approx(400 * 50, rel=0.02)


def test_the_windows_follow_from_seed_epoch_and_video_alone(make):
    videos = [make(60, [(0, 60, "A")]), make(45, [(0, 45, "B")])]
    first, again = dataset(*videos), dataset(*videos)
    again.windows(5), again.batches(3), again.sample(9, 0)
    for epoch in (0, 1, 7):
        assert first.windows(epoch) == again.windows(epoch)
        assert first.batches(epoch) == again.batches(epoch)
        assert torch.equal(first.sample(epoch, 2).features, again.sample(epoch, 2).features)
    assert first.windows(0) != first.windows(1)
    assert first.windows(0) != dataset(*videos, seed=1).windows(0)


@pytest.mark.parametrize(("wanted", "num_epochs", "expected"), [(3, 10, 30), (0.5, 10, 5), (2.25, 8, 18)])
def test_as_many_windows_per_video_as_wanted(make, wanted, num_epochs, expected):
    data = dataset(*(make(20, [(0, 20, "A")]) for _ in range(4)), windows_per_video=wanted)
    drawn = Counter(window.video for epoch in range(num_epochs) for window in data.windows(epoch))
    assert set(drawn) == {0, 1, 2, 3}
    assert all(abs(number - expected) <= 1 for number in drawn.values())


def test_a_window_without_a_clip_is_left_out(make):
    data = dataset(make(80, [(0, 4, "Begin")]), windows_per_video=10)
    windows = [window for epoch in range(20) for window in data.windows(epoch)]
    assert windows and all(window.first < 4 for window in windows)
    assert all(data.sample(0, index).clips for index in range(len(data.windows(0))))


def test_a_data_set_without_a_frame_in_an_event_is_refused(make):
    with pytest.raises(InvalidConfig, match=r"no frame lies within an event; raise data\.fps"):
        dataset(make(5, [(0.2, 0.8, "Missed")]))


def test_a_budget_shortens_the_windows_and_a_hopeless_one_is_refused(make, caplog):
    video = make(60, [(0, 60, "one two three four five")])
    with caplog.at_level(logging.WARNING):
        data = dataset(video, max_batch_tokens=50)  # 10 + 4 * (5 + 5)
    assert {window.num_frames for window in data.windows(0)} == {4}
    assert "windows of 1.mp4 have 4 frames, not 8, to fit into 50 tokens" in caplog.text
    assert all(len(batch) == 1 for batch in data.batches(0))
    with pytest.raises(InvalidConfig, match=r"max_batch_tokens is 19, too few for one frame of 1\.mp4"):
        dataset(video, max_batch_tokens=19)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    max_frames=st.integers(1, 20),
    budget=st.integers(30, 400),
    epoch=st.integers(0, 3),
)
def test_batches_hold_every_sample_within_the_budget(make, lengths, max_frames, budget, epoch):
    videos = [make(length, [(0, length / 2, "a b c"), (length / 2, length, "d")]) for length in lengths]
    data = dataset(*videos, max_frames=max_frames, max_batch_tokens=budget)
    whole = data.batches(epoch)
    for batch in whole:
        assert batch and sum(data.length(epoch, index) for index in batch) <= budget
    assert sorted(index for batch in whole for index in batch) == list(range(len(data.windows(epoch))))


def test_batches_hold_samples_of_like_length(make):
    videos = [make(length, [(0, length, "A")]) for length in [2] * 30 + [8] * 30]
    data = dataset(*videos, max_batch_tokens=300)
    mixed = [batch for batch in data.batches(0) if len({data.length(0, index) for index in batch}) > 1]
    assert len(mixed) <= 1
    assert data.batches(0) != data.batches(1)


def test_a_sample_keeps_no_file_mapped(make):
    data = dataset(make(5, [(0, 5, "A")]))
    sample = data.sample(0, 0)
    before = sample.features.clone()
    with data._videos[0][1].path.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff" * 64)
    assert torch.equal(sample.features, before)


def test_an_epoch_to_which_no_window_falls_has_one_with_a_clip(make):
    """Without, a step would have nothing to learn from."""
    data = dataset(make(30, [(13, 15, "A cat")]), make(20, [(3, 4, "A dog")]), windows_per_video=0.01)
    found = [data.windows(epoch) for epoch in range(40)]
    assert all(len(windows) >= 1 and len(data.batches(epoch)) >= 1 for epoch, windows in enumerate(found))
    assert all(data.sample(epoch, 0).clips for epoch in range(40))
    assert {window.num_frames for windows in found for window in windows} == {8}
    assert {window.video for windows in found for window in windows} == {0, 1}
    assert len({window.first for windows in found for window in windows}) > 4
    again = dataset(make(30, [(13, 15, "A cat")]), make(20, [(3, 4, "A dog")]), windows_per_video=0.01)
    assert [again.windows(epoch) for epoch in reversed(range(40))] == found[::-1]


def test_a_video_without_a_frame_gives_no_window(make):
    data = dataset(make(0, [(0, 1, "A cat")]), make(6, [(0, 5, "A dog")]))
    assert {window.video for window in data.windows(0)} == {1}


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_batch_has_so_many_sequences_at_most(make, most):
    data = dataset(make(100, [(0, 99, "A cat sits")]), make(7, [(0, 6, "A dog")]), max_batch_sequences=most)
    batches = data.batches(0)
    assert sorted(index for batch in batches for index in batch) == list(range(len(data.windows(0))))
    assert max(map(len, batches)) == (most or len(data.windows(0)))
    assert len(batches) == -(-len(data.windows(0)) // (most or len(data.windows(0))))
