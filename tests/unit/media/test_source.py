"""What source strings mean, and how they may be shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from livestar.errors import SourceNotFound, SourceUnreadable
from livestar.media.source import SourceKind, classify, display_name, list_pictures, stream_id_for

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://cam.local:554/live", "rtsp://cam.local:554/live"),
        ("rtsp://admin:secret@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://secret@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://a:se@cret@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://a:sec/ret@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://a:sec?ret@cam.local/live", "rtsp://***@cam.local/live"),
        ("rtsp://a:sec#ret@cam.local/live", "rtsp://***@cam.local/live"),
        ("https://h/live.m3u8?token=secret&x=secret", "https://h/live.m3u8?token=***&x=***"),
        ("https://h/live.m3u8?secret", "https://h/live.m3u8?***"),
        ("https://h/live.m3u8#token=secret", "https://h/live.m3u8"),
        ("srt://h:9000?passphrase=secret", "srt://h:9000?passphrase=***"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://h:80/@someone/video", "http://h:80/@someone/video"),
        ("http://u:secret@[::1]:8080/a", "http://***@[::1]:8080/a"),
        ("udp://@239.0.0.1:1234", "udp://@239.0.0.1:1234"),
        ("videos/what?.mp4", "videos/what?.mp4"),
    ],
)
def test_passwords_and_query_values_are_never_shown(uri: str, shown: str) -> None:
    assert display_name(uri) == shown


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "RTSP"])
def test_an_address_is_a_live_url(scheme: str) -> None:
    source = classify(f"{scheme}://u:secret@host/path")
    assert source.kind is SourceKind.URL
    assert source.location == f"{scheme.lower()}://u:secret@host/path"
    assert "secret" not in source.name


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("hls://h/x", "http://h/x"),
        ("hls+http://h/x", "http://h/x"),
        ("hls+https://h/x", "https://h/x"),
    ],
)
def test_an_hls_address_says_its_format(uri: str, location: str) -> None:
    source = classify(uri)
    assert (source.location, source.format) == (location, "hls")


def test_paths_are_files_or_folders_of_pictures(tmp_path: Path) -> None:
    clip, picture = tmp_path / "a clip.mp4", tmp_path / "one.PNG"
    clip.touch()
    picture.touch()
    assert classify(str(clip)).kind is SourceKind.FILE
    assert classify(clip.as_uri()).location == str(clip)
    assert classify(str(tmp_path)).kind is SourceKind.PICTURES
    assert classify(str(picture)).kind is SourceKind.PICTURES


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "no/such/file.mp4",
        "gopher://host/x",
        "rtsp://",
        "rtsp:///",
        "file:///no/such",
        "file://host/x",
        "a\0b",
        "file://[",
        "~nobody-here/x",
        "x" * 5000,
    ],
)
def test_what_is_nothing_is_refused_with_the_forms_that_are_taken(uri: str) -> None:
    with pytest.raises(SourceNotFound, match=r"give |write "):
        classify(uri)


def test_a_pipe_is_neither_file_nor_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceUnreadable, match="neither a file nor a folder"):
        classify(str(tmp_path / "pipe"))


def test_the_pictures_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "2.PNG", "1.jpg", "b2.webp", "b10.jpeg", "notes.txt", "b2a.bmp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_pictures(str(tmp_path))]
    assert names == ["1.jpg", "2.PNG", "10.png", "b2.webp", "b2a.bmp", "b10.jpeg"]


@pytest.mark.parametrize(
    ("uri", "stream_id"),
    [
        ("videos/My Holiday (1).mp4", "my-holiday-1"),
        ("rtsp://admin:secret@cam1.local:554/live/lobby?token=secret", "cam1.local-554-live-lobby"),
        ("https://host/a/live.m3u8", "host-a-live"),
        ("udp://239.0.0.1:1234", "239.0.0.1-1234"),
        ("udp://@239.0.0.1:1234", "239.0.0.1-1234"),
        ("///", "stream"),
        ("видео.mp4", "stream"),
        ("x" * 300 + ".mp4", "x" * 48),
    ],
)
def test_a_stream_id_is_short_and_tells_the_source(uri: str, stream_id: str) -> None:
    assert stream_id_for(uri, set()) == stream_id


def test_a_folder_gives_its_name_and_a_taken_id_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "set.v1"
    folder.mkdir()
    assert stream_id_for(str(folder), set()) == "set.v1"
    assert stream_id_for(f"{folder}/", {"set.v1"}) == "set.v1-2"
    assert stream_id_for(folder.as_uri(), {"set.v1", "set.v1-2"}) == "set.v1-3"
