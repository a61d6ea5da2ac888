"""Video files, whole and damaged, to the frames that come of them."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from livestar.config import MediaConfig, Pace
from livestar.errors import InvalidConfig, SourceError, SourceNotFound, SourceTruncated, SourceUnreadable
from livestar.media import FrameQueue, SourceReader
from tests.integration.media.clips import QUARTERS, cut, damage, make_clip, make_sound, picture, quarters, turn
from tests.integration.media.watching import watch

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts", "x.flv", "x.mov"])
@pytest.mark.parametrize(("rate", "num_frames"), [(25, 150), (Fraction(30000, 1001), 180), (30, 180)], ids=["25", "29.97", "30"])
def test_a_clip_gives_one_frame_a_second(tmp_path: Path, name: str, rate: Fraction | int, num_frames: int) -> None:
    watched = watch(make_clip(tmp_path / name, rate=rate, num_frames=num_frames))
    assert watched.error is None
    assert [frame.index for frame in watched.frames] == list(range(1, len(watched.frames) + 1))
    assert len(watched.frames) in (6, 7)
    assert all(k - 0.002 <= time_s < k + 1 / rate + 0.002 for k, time_s in enumerate(watched.times))


def test_more_frames_than_the_clip_has_gives_each_of_them_once(tmp_path: Path) -> None:
    watched = watch(make_clip(tmp_path / "x.mp4", num_frames=40), fps=60)
    assert watched.times == [round(n / 25, 3) for n in range(40)]
    assert watched.stats.num_decoded == watched.stats.num_sampled == 40


def test_a_variable_rate_is_sampled_by_media_time(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 900, 1300, 1310, 2000, 2900, 5500, 5540, 6000, 6100]
    clip = make_clip(tmp_path / "x.mkv", num_frames=len(times_ms), times_ms=times_ms)
    assert watch(clip).times == [0.0, 1.3, 2.0, 5.5, 6.0]


def test_pictures_that_are_not_wanted_and_not_needed_are_not_decoded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=150)
    everything = {frame.pts_s: frame.image for frame in watch(clip, fps=60).frames}
    watched = watch(clip, fps=1)
    assert watched.stats.num_decoded < 150
    for frame in watched.frames:
        np.testing.assert_array_equal(frame.image, everything[frame.pts_s])


def test_a_frame_is_the_rgb_picture_resized_as_published(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=2)
    with av.open(str(clip)) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")
    expected = np.asarray(Image.fromarray(rgb).resize((48, 48), Image.Resampling.BICUBIC))
    frame = watch(clip, image_size=48).frames[0]
    np.testing.assert_array_equal(frame.image, expected)
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda seen: seen),
        ((0, 1, -1, 0), lambda seen: np.rot90(seen, -1)),
        ((-1, 0, 0, -1), lambda seen: np.rot90(seen, 2)),
        ((0, -1, 1, 0), lambda seen: np.rot90(seen, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
    ],
    ids=["upright", "90 clockwise", "180", "90 counterclockwise", "mirrored", "upside down"],
)
def test_a_turned_clip_is_shown_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], turned: Callable[..., NDArray[np.int64]]
) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=3)
    turn(clip, matrix)
    expected = turned(np.array(QUARTERS))
    np.testing.assert_array_equal(quarters(watch(clip).frames[0].image), expected)


def test_a_rotate_tag_turns_clockwise_where_there_is_no_matrix(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mkv", num_frames=3, tags={"rotate": "90"})
    np.testing.assert_array_equal(quarters(watch(clip).frames[0].image), np.rot90(np.array(QUARTERS), -1))


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts", "x.flv"])
def test_the_start_is_found_to_the_picture(tmp_path: Path, name: str) -> None:
    clip = make_clip(tmp_path / name, num_frames=250, gop=60)
    whole = {frame.pts_s: frame.image for frame in watch(clip, fps=25).frames}
    watched = watch(clip, start_s=7.3)
    assert watched.times == [7.32, 8.32, 9.32]
    for frame in watched.frames:
        np.testing.assert_array_equal(frame.image, whole[frame.pts_s])


def test_a_start_behind_the_end_is_refused(tmp_path: Path) -> None:
    watched = watch(make_clip(tmp_path / "x.mp4"), start_s=11)
    assert isinstance(watched.error, InvalidConfig)
    assert "lasts 3.000 s" in str(watched.error)


def test_a_loop_goes_on_in_media_time_and_says_so(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4")
    watched = watch(clip, loop=True, until=lambda so_far: len(so_far.frames) >= 8)
    assert watched.times[:8] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert watched.codes[:2] == ["looped", "looped"]


def test_a_loop_starts_again_at_its_start(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4")
    watched = watch(clip, loop=True, start_s=2.0, until=lambda so_far: len(so_far.frames) >= 4)
    assert watched.times[:4] == [2.0, 3.0, 4.0, 5.0]


def test_looping_leaks_neither_memory_nor_open_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=10)
    process = psutil.Process()

    num_laps = [0]
    queue = FrameQueue(4, overflow="block")

    def count(code: str, message: str, number: int) -> None:
        num_laps[0] += number

    def loop(until: int) -> tuple[int, int]:
        while num_laps[0] < until:
            if queue.poll() is None:
                time.sleep(0.001)
        gc.collect()
        return process.memory_info().rss, process.num_fds()

    config = MediaConfig(pace="fast", loop=True)
    reader = SourceReader(str(clip), config=config, image_size=32, queue=queue, on_notice=count)
    reader.start()
    before_bytes, before_files = loop(300)
    after_bytes, after_files = loop(1500)
    reader.stop()
    assert reader.join(5.0)
    assert after_bytes - before_bytes < 6 << 20
    assert after_files <= before_files + 1  # the clip itself may be open


def test_real_time_takes_as_long_as_the_clip(tmp_path: Path) -> None:
    started = time.monotonic()
    watched = watch(make_clip(tmp_path / "x.mp4", num_frames=38), fps=10, pace="realtime")
    assert 1.35 <= time.monotonic() - started < 4.0
    assert len(watched.frames) == 15


def test_real_time_drops_what_nobody_took_and_counts_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=25)
    queue = FrameQueue(2, overflow="drop_oldest")
    config = MediaConfig(fps=25, pace="realtime")
    reader = SourceReader(str(clip), config=config, image_size=32, queue=queue, on_notice=lambda *notice: None)
    reader.start()
    assert reader.join(10.0)
    assert queue.num_dropped == 23
    assert [frame.index for frame in (queue.poll(), queue.poll()) if frame is not None] == [24, 25]
    assert queue.is_finished


@pytest.mark.parametrize("pace", ["realtime", "fast"])
def test_a_stop_is_prompt_while_the_reader_waits(tmp_path: Path, pace: Pace) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=250)
    filled = threading.Event()
    queue = FrameQueue(1, overflow="drop_oldest" if pace == "realtime" else "block", on_change=filled.set)
    config = MediaConfig(fps=0.2, pace=pace)
    reader = SourceReader(str(clip), config=config, image_size=32, queue=queue, on_notice=lambda *notice: None)
    reader.start()
    assert filled.wait(5.0)
    started = time.monotonic()
    reader.stop()
    assert reader.join(5.0)
    assert time.monotonic() - started < 1.0
    assert queue.is_finished
    assert queue.error is None


def test_a_missing_file_is_named_without_opening_anything(tmp_path: Path) -> None:
    watched = watch(tmp_path / "nothing.mp4")
    assert isinstance(watched.error, SourceNotFound)
    assert "nothing.mp4" in str(watched.error)


@pytest.mark.parametrize("name", ["x.mp4", "x.txt", "x.ans", "x.mkv"])
def test_text_is_not_a_video(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is no video.\n" * 500)
    watched = watch(path)
    assert isinstance(watched.error, SourceUnreadable)
    assert name in str(watched.error)
    assert "not a video" in str(watched.error)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    watched = watch(tmp_path / "x.mp4")
    assert isinstance(watched.error, SourceUnreadable)
    assert "empty file" in str(watched.error)


@pytest.mark.parametrize(("name", "codec"), [("x.wav", "pcm_s16le"), ("x.m4a", "aac"), ("x.mp3", "libmp3lame")])
def test_sound_alone_is_not_enough(tmp_path: Path, name: str, codec: str) -> None:
    watched = watch(make_sound(tmp_path / name, codec))
    assert isinstance(watched.error, SourceUnreadable)
    assert "has sound but no video" in str(watched.error)


def test_a_video_track_without_a_picture_is_called_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    watched = watch(tmp_path / "x.avi")
    assert isinstance(watched.error, SourceUnreadable)
    assert "without a picture" in str(watched.error)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.flv"])
def test_a_file_that_was_cut_off_gives_what_is_there_and_then_the_error(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "x.mp4" else {}
    clip = make_clip(tmp_path / name, num_frames=250, options=options)
    cut(clip, 0.6)
    watched = watch(clip)
    assert 3 <= len(watched.frames) < 10
    assert isinstance(watched.error, SourceTruncated)
    assert "of its 10." in str(watched.error)


def test_a_file_that_was_cut_off_before_its_index_is_called_incomplete(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4")
    cut(clip, 0.6)
    watched = watch(clip)
    assert watched.frames == []
    assert isinstance(watched.error, SourceTruncated)
    assert "ends before its index" in str(watched.error)


def test_a_last_picture_that_stands_long_is_no_missing_end(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mkv", num_frames=4, times_ms=[0, 1000, 2000, 9000])
    assert watch(clip).error is None


@pytest.mark.parametrize("name", ["x.mp4", "x.ts", "x.mkv"])
def test_damage_in_the_middle_is_skipped_and_counted(tmp_path: Path, name: str) -> None:
    clip = make_clip(tmp_path / name, num_frames=250)
    damage(clip, [(0.4, 0.5)])
    watched = watch(clip)
    assert watched.error is None
    assert watched.times[:3] == [0.0, 1.0, 2.0]
    assert watched.times[-1] >= 9.0
    assert watched.stats.num_packets_skipped > 0
    assert set(watched.codes) == {"packets_skipped"}
    assert len(watched.notices) <= 2
    assert sum(count for _, _, count in watched.notices) == watched.stats.num_packets_skipped


@pytest.mark.parametrize("name", ["x.mp4", "x.ts", "x.mkv", "x.flv", "x.avi"])
def test_whatever_is_damaged_the_end_is_one_of_ours(tmp_path: Path, name: str) -> None:
    whole = make_clip(tmp_path / name, num_frames=50, codec="mpeg4" if name == "x.avi" else "libx264").read_bytes()
    noise = np.random.default_rng(11)
    for _ in range(30):
        content = bytearray(whole)
        for at in noise.integers(0, len(content), noise.integers(1, 40)):
            content[at] = noise.integers(0, 256)
        (tmp_path / name).write_bytes(content[: noise.integers(1, len(content) + 1)])
        watched = watch(tmp_path / name, fps=10, max_pixels=10**6)
        assert watched.error is None or isinstance(watched.error, SourceError), repr(watched.error)


def test_a_file_of_nothing_but_damage_is_unreadable(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4")
    content = bytearray(clip.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[start:end] = b"\xff" * (end - start)
    clip.write_bytes(content)
    watched = watch(clip)
    assert watched.frames == []
    assert isinstance(watched.error, SourceUnreadable)
    assert "none of its pictures can be decoded" in str(watched.error)


def test_a_picture_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    watched = watch(make_clip(tmp_path / "x.mp4", size=(640, 480), num_frames=5), max_pixels=1000)
    assert isinstance(watched.error, SourceUnreadable)
    assert "640 x 480 pixels, more than the 1000 allowed" in str(watched.error)
    assert watched.stats.num_decoded == 0


def join(tmp_path: Path, name: str, *sizes: tuple[int, int]) -> Path:
    joined = tmp_path / name
    with joined.open("wb") as whole:
        for number, size in enumerate(sizes):
            part = make_clip(tmp_path / f"{number}{joined.suffix}", num_frames=50, size=size)
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
    return joined


def test_a_size_that_changes_in_mid_stream_and_a_clock_that_starts_again_do_not_matter(tmp_path: Path) -> None:
    watched = watch(join(tmp_path, "x.ts", (128, 96), (320, 240)), fps=5)
    assert watched.error is None
    assert len(watched.frames) == 20
    assert watched.times[-1] == pytest.approx(3.8, abs=0.1)
    for frame in watched.frames:
        assert frame.image.shape == (32, 32, 3)
        assert quarters(frame.image) == QUARTERS


def test_a_bomb_in_mid_stream_is_skipped_and_counted(tmp_path: Path) -> None:
    watched = watch(join(tmp_path, "x.h264", (128, 96), (320, 240), (128, 96)), fps=5, max_pixels=128 * 96)
    assert watched.error is None
    assert watched.stats.num_decoded <= 100
    assert watched.stats.num_packets_skipped >= 45
    assert len(watched.frames) == pytest.approx(20, abs=1)


def test_an_unexpected_failure_is_our_fault_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=2)
    config = MediaConfig(pace="fast")
    queue = FrameQueue(4, overflow="block")
    reader = SourceReader(str(clip), config=config, image_size=-1, queue=queue, on_notice=lambda *notice: None)
    with caplog.at_level(logging.ERROR):
        reader.start()
        assert reader.join(10.0)
    assert type(queue.error).__name__ == "EngineFailed"
    assert "reading" in caplog.text


def write_pictures(folder: Path, num_pictures: int) -> Path:
    folder.mkdir()
    for number in range(num_pictures):
        Image.fromarray(picture(number, 64, 48)).save(folder / f"{number + 1}.png")
    return folder


def test_every_picture_of_a_folder_is_a_frame(tmp_path: Path) -> None:
    watched = watch(write_pictures(tmp_path / "set", 12), fps=2)
    assert watched.error is None
    assert watched.times == [n / 2 for n in range(12)]
    assert [frame.index for frame in watched.frames] == list(range(1, 13))
    expected = Image.fromarray(picture(9, 64, 48)).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(watched.frames[9].image, np.asarray(expected))


def test_one_picture_is_a_source_of_one_frame(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", 1)
    assert watch(folder / "1.png").times == [0.0]


def test_a_folder_can_start_late_and_loop(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", 4)
    watched = watch(folder, start_s=2, loop=True, until=lambda so_far: len(so_far.frames) >= 5)
    assert watched.times[:5] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert isinstance(watch(folder, start_s=4).error, InvalidConfig)


def test_pictures_of_a_folder_that_cannot_be_read_are_skipped_and_counted(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", 6)
    (folder / "2.png").write_bytes(b"no picture")
    Image.new("1", (200, 200)).save(folder / "4.png")
    watched = watch(folder, max_pixels=64 * 48)
    assert watched.error is None
    assert watched.times == [0.0, 2.0, 4.0, 5.0]
    assert [(code, count) for code, _, count in watched.notices] == [("pictures_skipped", 1), ("pictures_skipped", 1)]
    assert "2.png" in watched.notices[0][1]
    assert "4.png is 200 x 200 pixels" in watched.notices[1][1]
    assert watched.stats.num_packets_skipped == 2


def test_a_folder_with_nothing_to_show_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "folder without pictures" in str(watch(tmp_path / "none").error)
    folder = write_pictures(tmp_path / "bad", 2)
    for path in folder.iterdir():
        path.write_bytes(b"")
    error = watch(folder, loop=True).error
    assert isinstance(error, SourceUnreadable)
    assert "no picture can be read" in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", num_frames=2)
    clip.chmod(0)
    assert "may not be read" in str(watch(clip).error)
