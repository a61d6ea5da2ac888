"""Live sources on loopback: played, lost, back again, and given up."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from livestar.config import MediaConfig
from livestar.errors import SourceError, SourceNotFound, SourceStalled, SourceTruncated, SourceUnreadable
from livestar.media import FrameQueue, SourceReader
from tests.integration.media.clips import QUARTERS, make_clip, quarters
from tests.integration.media.servers import (
    LOOPBACK,
    MotionJpegHandler,
    PlayServer,
    RtmpHandler,
    RtspHandler,
    free_port,
    http_files,
    in_thread,
    send_udp,
    serving,
    write_live_hls,
    write_stream,
)
from tests.integration.media.watching import Watched, watch

pytestmark = pytest.mark.integration

CAMERAS = {
    "rtsp": (RtspHandler, "rtsp://user:secret@{}/live?token=secret"),
    "rtmp": (RtmpHandler, "rtmp://{}/app/room"),
    "motion jpeg": (MotionJpegHandler, "http://user:secret@{}/video.cgi?token=secret"),
}
QUICK: dict[str, Any] = {"reconnect_backoff_s": 0.05, "stall_timeout_s": 1.0, "open_timeout_s": 5.0}


def enough(num_frames: int) -> Callable[[Watched], bool]:
    return lambda so_far: len(so_far.frames) >= num_frames


def has_gap(watched: Watched, gap_s: float) -> bool:
    return any(later - earlier > gap_s for earlier, later in zip(watched.times, watched.times[1:], strict=False))


@pytest.mark.parametrize("protocol", CAMERAS)
def test_a_live_source_is_watched_as_it_comes(protocol: str) -> None:
    handler, address = CAMERAS[protocol]
    server = PlayServer(handler, 100)
    with serving(server):
        watched = watch(address.format(server.address), fps=5, pace="realtime", until=enough(10), **QUICK)
    assert watched.times[0] == 0.0
    assert watched.times[9] == pytest.approx(1.8, abs=0.25)
    assert quarters(watched.frames[-1].image) == QUARTERS
    assert watched.codes == []


@pytest.mark.parametrize("protocol", CAMERAS)
def test_a_live_source_that_hangs_up_is_opened_again(protocol: str) -> None:
    handler, address = CAMERAS[protocol]
    server = PlayServer(handler, 20)
    with serving(server):
        watched = watch(
            address.format(server.address),
            fps=25,
            pace="realtime",
            max_queued_frames=100,
            until=lambda so_far: so_far.codes.count("source_back") >= 2,
            **QUICK,
        )
    assert watched.codes[:4] == ["source_lost", "source_back", "source_lost", "source_back"]
    assert watched.stats.num_reconnects >= 2
    assert "secret" not in str(watched.notices)


@pytest.mark.parametrize("protocol", CAMERAS)
def test_a_live_source_that_falls_silent_is_stalled_and_given_up(protocol: str) -> None:
    handler, address = CAMERAS[protocol]
    server = PlayServer(handler, 50, is_silent_after=True)
    with serving(server):
        started = time.monotonic()
        watched = watch(address.format(server.address), fps=5, pace="realtime", max_reconnects=0, **QUICK)
        assert time.monotonic() - started < 6
    assert len(watched.frames) >= 3
    assert isinstance(watched.error, SourceStalled)
    assert "secret" not in str(watched.error)


@pytest.mark.parametrize("protocol", CAMERAS)
def test_a_live_source_that_never_comes_back_is_given_up_after_so_many_attempts(protocol: str) -> None:
    handler, address = CAMERAS[protocol]
    server = PlayServer(handler, 20)
    with serving(server):
        uri = address.format(server.address)

        def go_away() -> None:
            time.sleep(0.4)
            server.shutdown()
            server.socket.close()

        went = threading.Thread(target=go_away)
        went.start()
        watched = watch(uri, fps=5, pace="realtime", max_reconnects=3, **QUICK)
        went.join()
    assert isinstance(watched.error, SourceStalled)
    assert "gave up after 3 attempts" in str(watched.error)
    assert "secret" not in str(watched.error)
    assert watched.codes == ["source_lost"]


def test_the_end_of_a_live_source_is_regular_where_it_is_not_to_be_opened_again() -> None:
    server = PlayServer(RtmpHandler, 20)
    with serving(server):
        watched = watch(f"rtmp://{server.address}/app/room", fps=5, pace="realtime", max_reconnects=0, **QUICK)
    assert watched.error is None
    assert len(watched.frames) >= 3


def test_a_live_source_that_ends_before_its_first_picture_is_an_error() -> None:
    server = PlayServer(RtspHandler, 0)
    with serving(server):
        watched = watch(f"rtsp://{server.address}/live", max_reconnects=0, **QUICK)
    assert isinstance(watched.error, SourceStalled)
    assert "before its first picture" in str(watched.error)


@pytest.mark.slow
def test_udp_is_watched_lost_and_back() -> None:
    port = free_port(socket.SOCK_DGRAM)

    def send_twice(stop: threading.Event) -> None:
        send_udp(port, 60, stop)
        if not stop.wait(2.0):
            send_udp(port, 500, stop)

    with in_thread(send_twice):
        watched = watch(
            f"udp://{LOOPBACK}:{port}",
            fps=5,
            pace="realtime",
            until=lambda so_far: "source_back" in so_far.codes and has_gap(so_far, 1.5),
            **QUICK,
        )
    assert [code for code in watched.codes if code != "packets_skipped"] == ["source_lost", "source_back"]
    assert watched.stats.num_reconnects >= 1
    assert 1.5 < max(b - a for a, b in zip(watched.times, watched.times[1:], strict=False)) < 6


@pytest.mark.slow
def test_a_live_clock_that_starts_again_does_not_stop_the_sampling() -> None:
    port = free_port(socket.SOCK_DGRAM)

    def send_thrice(stop: threading.Event) -> None:
        for _ in range(3):
            send_udp(port, 50, stop)

    with in_thread(send_thrice):
        watched = watch(f"udp://{LOOPBACK}:{port}", fps=5, pace="realtime", max_queued_frames=100, max_reconnects=0, **QUICK)
    assert watched.times[-1] == pytest.approx(6, abs=1)
    assert not has_gap(watched, 0.6)
    assert set(watched.codes) <= {"packets_skipped"}


def test_opening_again_and_again_leaves_nothing_open() -> None:
    server = PlayServer(MotionJpegHandler, 2)
    process = psutil.Process()
    with serving(server):
        num_files, num_threads = process.num_fds(), threading.active_count()
        watch(
            f"http://{server.address}/video.cgi",
            pace="realtime",
            fps=25,
            reconnect_backoff_s=0.001,
            until=lambda so_far: so_far.codes.count("source_back") >= 20,
        )
        assert process.num_fds() <= num_files + 1
        assert threading.active_count() <= num_threads + 1


@pytest.mark.slow
def test_udp_that_stops_for_good_is_stalled() -> None:
    port = free_port(socket.SOCK_DGRAM)
    with in_thread(send_udp, port, 50):
        watched = watch(
            f"udp://{LOOPBACK}:{port}",
            fps=5,
            pace="realtime",
            max_reconnects=1,
            reconnect_backoff_s=0.05,
            stall_timeout_s=0.5,
            open_timeout_s=3.0,
        )
    assert isinstance(watched.error, SourceStalled)
    assert "gave up after 1 attempts" in str(watched.error)
    assert len(watched.frames) >= 5


def test_nobody_sending_is_found_out_in_time() -> None:
    port = free_port(socket.SOCK_DGRAM)
    watched = watch(f"udp://{LOOPBACK}:{port}", open_timeout_s=0.5)
    assert isinstance(watched.error, SourceNotFound)
    assert "sent no video within 0.5 s" in str(watched.error)


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp"])
def test_nobody_listening_is_found_out_at_once(scheme: str) -> None:
    watched = watch(f"{scheme}://user:secret@{LOOPBACK}:{free_port()}/x?token=secret", max_reconnects=5)
    assert isinstance(watched.error, SourceNotFound)
    assert "Connection refused" in str(watched.error)
    assert "secret" not in str(watched.error)


def test_a_reader_inside_a_blocking_read_can_be_stopped() -> None:
    server = PlayServer(RtspHandler, 20, is_silent_after=True)
    with serving(server):
        arrived = threading.Event()
        queue = FrameQueue(4, overflow="drop_oldest", on_change=arrived.set)
        config = MediaConfig(stall_timeout_s=1.0)
        uri = f"rtsp://{server.address}/live"
        reader = SourceReader(uri, config=config, image_size=32, queue=queue, on_notice=lambda *notice: None)
        reader.start()
        assert arrived.wait(10)
        started = time.monotonic()
        reader.stop()
        assert time.monotonic() - started < 0.1
        assert queue.is_finished
        assert reader.join(5)


def test_a_video_on_a_web_server_is_a_file_that_ends(tmp_path: Path) -> None:
    make_clip(tmp_path / "x.mp4", num_frames=250)
    with http_files(tmp_path) as address:
        assert watch(f"{address}/x.mp4").times == [float(k) for k in range(10)]
        assert watch(f"{address}/x.mp4", start_s=7.3).times == [7.32, 8.32, 9.32]


def test_a_stream_without_a_length_on_a_web_server_is_played_too(tmp_path: Path) -> None:
    write_stream(str(tmp_path / "x.ts"), 75, "mpegts")
    with http_files(tmp_path) as address:
        watched = watch(f"{address}/x.ts?token=secret")
    assert watched.error is None
    assert watched.times == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("nothing.mp4", SourceNotFound, "404"),
        ("forbidden/x.mp4", SourceNotFound, "refused access"),
        ("text.mp4", SourceUnreadable, "not a video"),
    ],
)
def test_what_a_web_server_refuses_is_named(tmp_path: Path, path: str, kind: type[SourceError], words: str) -> None:
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with http_files(tmp_path) as address:
        watched = watch(f"{address}/{path}?token=secret")
    assert isinstance(watched.error, kind)
    assert words in str(watched.error)
    assert "secret" not in str(watched.error)


def test_a_web_server_that_breaks_off_gives_what_came_and_then_the_error(tmp_path: Path) -> None:
    make_clip(tmp_path / "x.mp4", num_frames=1500, gop=10, options={"movflags": "faststart"})
    with http_files(tmp_path) as address:
        broken = watch(f"{address}/break/x.mp4", **QUICK)
        stalled = watch(f"{address}/stall/x.mp4", **QUICK)
    for watched in (broken, stalled):
        assert 10 < len(watched.frames) < 60
    assert isinstance(broken.error, SourceTruncated)
    assert isinstance(stalled.error, SourceStalled)


def test_an_hls_recording_ends_and_can_be_entered_late(tmp_path: Path) -> None:
    options = {"hls_time": "1", "hls_playlist_type": "vod"}
    write_stream(str(tmp_path / "x.m3u8"), 150, "hls", options=options)
    with http_files(tmp_path) as address:
        watched = watch(f"{address}/x.m3u8")
        assert watched.error is None
        assert watched.times == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert watch(f"hls+{address}/x.m3u8", start_s=3).times == [3.0, 4.0, 5.0]


@pytest.mark.slow
def test_live_hls_is_watched_as_it_grows_stalls_and_comes_back(tmp_path: Path) -> None:
    def write_twice(stop: threading.Event) -> None:
        write_live_hls(tmp_path, 100, stop)
        if not stop.wait(3.0):
            write_live_hls(tmp_path, 500, stop)

    with http_files(tmp_path) as address, in_thread(write_twice):
        while not (tmp_path / "live.m3u8").exists():
            time.sleep(0.05)
        watched = watch(
            f"{address}/live.m3u8",
            fps=5,
            pace="realtime",
            until=lambda so_far: "source_back" in so_far.codes and len(so_far.frames) > 20,
            reconnect_backoff_s=0.2,
            max_reconnects=20,
            stall_timeout_s=2.0,
            open_timeout_s=5.0,
        )
    assert [code for code in watched.codes if code != "packets_skipped"][:2] == ["source_lost", "source_back"]
    assert quarters(watched.frames[-1].image) == QUARTERS


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("srt-live-transmit") is None, reason="srt-live-transmit (srt-tools) is not installed")
def test_srt_is_watched_and_given_up_when_it_stops() -> None:
    udp_port, srt_port = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    addresses = f"udp://{LOOPBACK}:{udp_port}", f"srt://{LOOPBACK}:{srt_port}?mode=listener"
    sender = subprocess.Popen(["srt-live-transmit", "-q", *addresses], stdout=subprocess.DEVNULL)
    try:
        with in_thread(send_udp, udp_port, 125):
            watched = watch(f"srt://{LOOPBACK}:{srt_port}", fps=5, pace="realtime", max_reconnects=0, **QUICK)
    finally:
        sender.terminate()
        sender.wait(10)
    assert len(watched.frames) >= 10
    assert quarters(watched.frames[-1].image) == QUARTERS
    assert isinstance(watched.error, SourceStalled)


def test_srt_without_the_means_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    watched = watch("srt://127.0.0.1:9?passphrase=secret")
    assert isinstance(watched.error, SourceUnreadable)
    assert "install srt-live-transmit" in str(watched.error)
    assert "secret" not in str(watched.error)
