"""The cache of visual tokens: it holds what watching sees, for exactly what it was computed from, whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import livestar
from livestar.annotations.duration import measure_duration
from livestar.annotations.footage import read_frames
from livestar.annotations.types import AnnotatedVideo
from livestar.errors import InvalidConfig, LiveStarError, SourceError, SourceNotFound, SourceTruncated, SourceUnreadable
from livestar.media.source import list_pictures
from livestar.model.livestar import LiveStarModel
from tests.integration.media.clips import make_clip
from tests.integration.media.watching import watch
from training.decode import fill_cache
from training.feature_file import HEADER_BYTES, FeatureWriter
from training.features import ABANDONED_S, FeatureCache, vision_fingerprint

pytestmark = pytest.mark.integration

FRENCH_GP = Path(livestar.__file__).parent / "assets" / "french_gp_1906.ogv"


def annotated(path: Path | tuple[str, ...], **fields: Any) -> AnnotatedVideo:
    source = path if isinstance(path, tuple) else str(path)
    return AnnotatedVideo(**{"source": source, "events": (), "file": "x.jsonl", "line": 7} | fields)


def same_as_watching(
    cache: FeatureCache, video: AnnotatedVideo, uri: object, *, start_s: float = 0.0, end_s: float = 1e9
) -> None:
    """The cache holds the times and the features of the frames that watching sees."""
    seen = [frame for frame in watch(uri, fps=cache.fps, image_size=224, start_s=start_s).frames if frame.pts_s < end_s - 0.01]
    found = cache.get(video)
    assert list(found.times_s) == [frame.pts_s for frame in seen]
    expected = cache.model.features(torch.stack([torch.from_numpy(frame.image) for frame in seen]))
    torch.testing.assert_close(found.features, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fps", [1.0, 2.0, 7.3])
@pytest.mark.parametrize("part", [(0.0, None), (1.7, None), (0.5, 2.0)])
def test_frames_and_times_are_those_that_watching_sees(model, tmp_path, fps, part):
    cache = FeatureCache(tmp_path / "cache", model, fps=fps)
    clips = [
        make_clip(tmp_path / "a.mp4", rate=Fraction(30000, 1001)),
        make_clip(tmp_path / "b.mkv", rate=Fraction(30000, 1001)),
        make_clip(tmp_path / "c.mkv", num_frames=40, times_ms=[0, 40, 95, *range(200, 3900, 100)]),
    ]
    for path in clips:
        video = annotated(path, begin_s=part[0], end_s=part[1])
        same_as_watching(cache, video, path, start_s=part[0], end_s=part[1] or 1e9)


def test_the_packaged_video_gives_what_watching_sees(model, tmp_path):
    same_as_watching(FeatureCache(tmp_path, model, fps=1.0), annotated(FRENCH_GP), FRENCH_GP)


@pytest.mark.parametrize(("fps", "begin_s"), [(1.0, 0.0), (2.0, 0.0), (2.0, 1.4)])
def test_a_folder_of_pictures_gives_what_watching_sees(model, folder, tmp_path, fps, begin_s):
    cache = FeatureCache(tmp_path, model, fps=fps)
    same_as_watching(cache, annotated(folder, fps=fps, begin_s=begin_s), folder, start_s=begin_s)
    pictures = tuple(map(str, list_pictures(str(folder))))
    same_as_watching(cache, annotated(pictures, fps=fps, begin_s=begin_s), folder, start_s=begin_s)


def test_pictures_that_come_faster_than_wanted_are_sampled_by_their_own_time(model, folder, tmp_path):
    fast = FeatureCache(tmp_path, model, fps=1.0).get(annotated(folder, fps=4.0))
    assert fast.times_s == (0.0, 1.0, 2.0)
    slow = FeatureCache(tmp_path, model, fps=4.0).get(annotated(folder, fps=2.0))
    assert slow.times_s == tuple(number / 2 for number in range(12))


def test_a_damaged_picture_is_passed_over_in_a_folder_and_refused_in_a_list(model, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "3.png").write_bytes(b"no picture")
    cache = FeatureCache(tmp_path / "cache", model, fps=1.0)
    assert cache.get(annotated(copy)).times_s == tuple(float(number) for number in range(12) if number != 2)
    with pytest.raises(SourceUnreadable, match=r"x\.jsonl:7: 3\.png is no picture"):
        cache.get(annotated(tuple(map(str, list_pictures(str(copy))))))


def test_the_second_time_nothing_is_decoded(model, clip, tmp_path):
    seen: list[int] = []
    first = FeatureCache(tmp_path, model, fps=2.0).get(annotated(clip), on_frames=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    second = FeatureCache(tmp_path, model, fps=2.0).get(annotated(clip), on_frames=seen.append)
    assert len(seen) == 6
    assert first == second
    assert torch.equal(first.features, second.features)
    assert torch.equal(second.window(1, 3), first.features[1:4])


def test_a_video_is_known_by_its_content_whatever_its_name_and_date(model, clip, tmp_path):
    cache = FeatureCache(tmp_path / "cache", model, fps=1.0)
    copy = tmp_path / "another name.mp4"
    shutil.copyfile(clip, copy)
    os.utime(copy, (0, 0))
    assert cache.key(annotated(copy)) == cache.key(annotated(clip))
    longer = make_clip(tmp_path / "longer.mp4", num_frames=100)
    assert cache.key(annotated(longer)) != cache.key(annotated(clip))


def test_a_video_that_is_replaced_is_noticed(model, clip, tmp_path):
    cache = FeatureCache(tmp_path / "cache", model, fps=1.0)
    path = tmp_path / "a.mp4"
    shutil.copyfile(clip, path)
    before = cache.key(annotated(path))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert cache.key(annotated(path)) != before


def test_everything_that_decides_about_the_features_is_in_the_key(model, demo_dir, clip, folder, tmp_path):
    def key(video: AnnotatedVideo | None = None, *, fps: float = 1.0, dtype: torch.dtype | None = None) -> str:
        return FeatureCache(tmp_path, model, fps=fps, dtype=dtype).key(video or annotated(clip))

    keys = [
        key(),
        key(fps=2.0),
        key(dtype=torch.float16),
        key(annotated(clip, begin_s=1.0)),
        key(annotated(clip, end_s=1.0)),
        key(annotated(folder)),
        key(annotated(folder, fps=2.0)),
    ]
    before = vision_fingerprint(model)
    model.vision_model.state_dict()["embeddings.class_embedding"][0, 0, 0] += 1
    keys.append(key())
    model.config = replace(model.config, num_visual_tokens=8)
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert vision_fingerprint(model) != before
    model.language_model.output.weight[0] += 1  # has no say
    assert key() == keys[-1]
    assert key(replace(annotated(clip), file="y.jsonl", line=1, duration_s=3.0)) == keys[-1]


def test_the_number_format_is_the_towers_or_the_one_asked_for(model, clip, tmp_path):
    whole = FeatureCache(tmp_path, model, fps=1.0).get(annotated(clip))
    half = FeatureCache(tmp_path, model, fps=1.0, dtype=torch.float16).get(annotated(clip))
    model.to(torch.bfloat16)
    coarse = FeatureCache(tmp_path, model, fps=1.0).get(annotated(clip))
    assert (whole.features.dtype, half.features.dtype, coarse.features.dtype) == (torch.float32, torch.float16, torch.bfloat16)
    assert torch.equal(half.features, whole.features.half())
    assert coarse.features.shape == whole.features.shape == (3, 16, 256)


def cut_off(content: bytes) -> bytes:
    return content[:-100]


def flip_a_bit(content: bytes) -> bytes:
    place = HEADER_BYTES + 1000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        cut_off,
        flip_a_bit,
        lambda content: b"",
        lambda content: b"\xff" * 100,
        lambda content: content.replace(b'"F32"', b'"I32"'),
        lambda content: content.replace(b'"key": "', b'"key": "0'),
        lambda content: content + b"more",
    ],
)
def test_a_damaged_file_is_noticed_and_computed_again(model, clip, tmp_path, damage, caplog):
    first = FeatureCache(tmp_path, model, fps=1.0).get(annotated(clip))
    expected = first.features.clone()
    first.path.write_bytes(damage(first.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = FeatureCache(tmp_path, model, fps=1.0).get(annotated(clip))
    assert "is damaged; its video is decoded again" in caplog.text
    assert torch.equal(again.features, expected)


def test_a_file_that_vanishes_while_it_is_used_is_named(model, clip, tmp_path):
    found = FeatureCache(tmp_path, model, fps=1.0).get(annotated(clip))
    found.path.unlink()
    with pytest.raises(LiveStarError, match=r"\.safetensors was there and cannot be read any more.*fill the cache again"):
        found.window(0, 1)


def test_a_video_that_breaks_off_leaves_nothing(model, clip, tmp_path):
    path = tmp_path / "cut.mkv"
    whole = make_clip(tmp_path / "whole.mkv", num_frames=250)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    cache = FeatureCache(tmp_path / "cache", model, fps=10.0)
    with pytest.raises(SourceTruncated, match=r"x\.jsonl:7: .*cut\.mkv ends after .* get it again"):
        cache.get(annotated(path))
    assert list((tmp_path / "cache").iterdir()) == []


FILL = """
import resource, sys
import torch
from pathlib import Path
from livestar.annotations.types import AnnotatedVideo
from livestar.errors import LiveStarError
from livestar.model.weights import load_model
from training.features import FeatureCache

torch.set_num_threads(1)
cache = FeatureCache(Path(sys.argv[1]), load_model(Path(sys.argv[2]), dtype=torch.float32), fps=10.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    cache.get(AnnotatedVideo(source=sys.argv[3], events=()))
except LiveStarError as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_takes_no_more_is_named_and_nothing_is_left(demo_dir, clip, tmp_path):
    command = [sys.executable, "-c", FILL, str(tmp_path / "cache"), str(demo_dir), str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith(
        f"LiveStarError visual tokens cannot be written to {tmp_path / 'cache'} (File too large); make room"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_day(model, tmp_path):
    left, fresh = tmp_path / "a.partial", tmp_path / "b.partial"
    for path in (left, fresh):
        path.touch()
    os.utime(left, (time.time() - ABANDONED_S - 60,) * 2)
    FeatureCache(tmp_path, model, fps=1.0)
    assert list(tmp_path.iterdir()) == [fresh]


def test_two_that_compute_the_same_at_once_keep_one_file(model, clip, tmp_path):
    caches = [FeatureCache(tmp_path, model, fps=8.0) for _ in range(2)]
    threads = [threading.Thread(target=cache.get, args=(annotated(clip),)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = tmp_path.iterdir()
    assert [cache.get(annotated(clip)).path for cache in caches] == [path, path]
    assert torch.equal(caches[0].get(annotated(clip)).features, caches[1].get(annotated(clip)).features)


def test_a_long_video_takes_no_more_memory_than_a_short_one(model, tmp_path):
    path = make_clip(tmp_path / "a.mp4", num_frames=200, size=(64, 48))
    cache = FeatureCache(tmp_path / "cache", model, fps=25.0)
    tracemalloc.start()
    try:
        found = cache.get(annotated(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    frames = 200 * 224 * 224 * 3
    assert found.num_frames == 200
    assert peak < frames / 3  # two batches of 16 are a sixth


def test_features_are_read_from_the_file_when_they_are_touched(tmp_path):
    path = tmp_path / "x.safetensors"
    with FeatureWriter(path, "key") as writer:
        for number in range(64):
            writer.append(torch.full((64, 16, 1024), float(number)), [number + place / 64 for place in range(64)])
        found = writer.commit()
    assert path.stat().st_size > 256 * 2**20
    before = psutil.Process().memory_info().rss
    assert found.window(64 * 63, 2).unique().tolist() == [63.0]
    mapped = found.features
    assert mapped[64, 0, 0] == 1
    assert psutil.Process().memory_info().rss - before < 64 * 2**20


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"source": "gone.mp4"}, SourceNotFound, "there is no file or folder 'gone.mp4'"),
        ({"source": ("gone.jpg",)}, SourceNotFound, r"gone\.jpg cannot be read \(No such file"),
        ({"source": "http://127.0.0.1:9/x.mp4"}, SourceUnreadable, "is an address; fetch the video"),
        ({"begin_s": 99.0}, InvalidConfig, "start_s is 99, but .* lasts 3.000 s"),
        ({"begin_s": 1.01, "end_s": 1.011}, SourceUnreadable, "has no frame in its part"),
    ],
)
def test_a_video_that_cannot_be_used_is_named_with_its_line(model, clip, tmp_path, change, error, message):
    cache = FeatureCache(tmp_path / "cache", model, fps=1.0)
    with pytest.raises(error, match=rf"^x\.jsonl:7: .*{message}"):
        cache.get(annotated(clip, **change))
    assert list((tmp_path / "cache").iterdir()) == []


def test_bad_videos_stop_the_filling_or_are_left_out_and_counted(model, clip, folder, tmp_path, caplog):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nonsense" * 100)
    videos = [annotated(clip), annotated(bad, line=8), annotated(folder, line=9), annotated(Path("gone.mp4"), line=10)]
    cache = FeatureCache(tmp_path / "cache", model, fps=1.0)
    with pytest.raises(SourceUnreadable, match=r"^x\.jsonl:8: .*bad\.mp4 is not a video; give"):
        fill_cache(cache, videos)
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        filled = fill_cache(cache, videos, on_bad="skip", on_progress=lambda done, total: told.append((done, total)))
    assert [video.line for video, _ in filled] == [7, 9]
    assert [found.num_frames for _, found in filled] == [3, 12]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "left out 2 of 4 videos" in caplog.text
    assert fill_cache(cache, videos[1:2], on_bad="skip") == []


def test_a_frame_rate_or_a_folder_that_cannot_be_is_refused(model, tmp_path):
    with pytest.raises(InvalidConfig, match="fps is 0"):
        FeatureCache(tmp_path, model, fps=0)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match=r"cache is .*which cannot be used"):
        FeatureCache(tmp_path / "file", model, fps=1.0)


def test_a_duration_is_measured_by_reading_to_the_end(folder, tmp_path):
    assert measure_duration(str(FRENCH_GP)) == pytest.approx(19.2)
    clips = {
        make_clip(tmp_path / "a.mp4", num_frames=60, rate=Fraction(30000, 1001)): 2.002,
        make_clip(tmp_path / "b.ts", num_frames=50): 2.0,
        make_clip(tmp_path / "c.mkv", num_frames=3, times_ms=[0, 1000, 5000]): 5.0,
    }
    for path, seconds in clips.items():
        assert measure_duration(str(path)) == pytest.approx(seconds, abs=0.05), path
    assert measure_duration(str(folder), fps=4.0) == 3.0
    assert measure_duration(tuple(map(str, list_pictures(str(folder))))) == 12.0
    missing: tuple[str | tuple[str, ...], ...] = ("gone.mp4", ("gone.jpg",))
    for source in missing:
        with pytest.raises(SourceError, match="there is no"):
            measure_duration(source)
    whole = make_clip(tmp_path / "whole.mkv", num_frames=250)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceTruncated):
        measure_duration(str(tmp_path / "cut.mkv"))


def test_pictures_can_be_read_in_their_own_size(clip, folder):
    for source, shape in ((clip, (96, 128, 3)), (folder, (64, 64, 3))):
        assert {frame.image.shape for frame in read_frames(annotated(source), fps=1.0, image_size=None)} == {shape}


def test_features_project_to_what_encoding_the_frames_gives(model: LiveStarModel, clip, tmp_path):
    cache = FeatureCache(tmp_path, model, fps=2.0)
    found = cache.get(annotated(clip))
    images = torch.stack([torch.from_numpy(f.image) for f in read_frames(annotated(clip), fps=2.0, image_size=224)])
    assert torch.equal(model.project(found.features), model.encode_frames(images))
