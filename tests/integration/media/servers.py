"""Small senders of live video on loopback: HTTP, motion JPEG, RTSP, RTMP and UDP.

They speak just enough of each protocol for FFmpeg's client, and play a clip in real time to everyone who connects.
"""

from __future__ import annotations

import io
import re
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import av
from PIL import Image

from tests.integration.media.clips import picture

RATE = 25
SIZE = (128, 96)
LOOPBACK = "127.0.0.1"


class Halt(Exception):
    """The test is over."""


class Beat:
    """Waits for each picture's time, until the test is over."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._started = time.monotonic()

    def wait(self, number: int) -> None:
        if self._stop.wait(max(0.0, self._started + number / RATE - time.monotonic())):
            raise Halt


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def in_thread(target: Callable[..., object], *args: object) -> Iterator[threading.Event]:
    """Run `target(*args, stop)` beside the test; the event that is yielded, and the end of the context, stop it."""
    stop = threading.Event()

    def run() -> None:
        try:
            target(*args, stop)
        except (Halt, OSError):
            return

    thread = threading.Thread(target=run, name=f"sender {target}")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


class PlayServer(socketserver.ThreadingTCPServer):
    """A server whose connections are told when the test is over."""

    allow_reuse_address = True
    daemon_threads = False
    block_on_close = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler], num_frames: int, *, is_silent_after: bool = False):
        super().__init__((LOOPBACK, 0), handler)
        self.stop = threading.Event()
        self.num_frames = num_frames
        self.is_silent_after = is_silent_after
        """Whether a connection stays open, without a word, when the clip is over."""
        self.num_plays = 0
        self.defects: list[BaseException | None] = []

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, Halt | OSError):  # clients go away when they like
            self.defects.append(error)


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="server")
    thread.start()
    try:
        yield
    finally:
        if isinstance(server, PlayServer):
            server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
        assert not thread.is_alive()
    assert getattr(server, "defects", []) == []


class FileHandler(SimpleHTTPRequestHandler):
    """Files with byte ranges; `/stall/` sends half a file and falls silent, `/break/` half and hangs up."""

    protocol_version = "HTTP/1.0"
    stop = threading.Event()

    def do_GET(self) -> None:
        path = Path(self.directory) / self.path.partition("?")[0].rpartition("/")[2]
        if "/forbidden/" in self.path:
            self.send_error(403)
        elif not path.is_file():
            self.send_error(404)
        else:
            self.send_part(path.read_bytes())

    def send_part(self, content: bytes) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        is_half = "/stall/" in self.path or "/break/" in self.path
        self.wfile.write(content[start : len(content) // 2] if is_half else content[start:])
        if "/stall/" in self.path:
            self.stop.wait(30)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def http_files(folder: Path) -> Iterator[str]:
    """Serve a folder; yields the address."""
    stop = threading.Event()
    handler = type("Handler", (FileHandler,), {"stop": stop})
    server = ThreadingHTTPServer((LOOPBACK, 0), partial(handler, directory=str(folder)))
    server.daemon_threads = False
    with serving(server):
        try:
            yield f"http://{LOOPBACK}:{server.server_address[1]}"
        finally:
            stop.set()


class MotionJpegHandler(socketserver.BaseRequestHandler):
    """An HTTP camera: multipart/x-mixed-replace."""

    server: PlayServer

    def handle(self) -> None:
        self.request.recv(4096)
        self.server.num_plays += 1
        head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n"
        self.request.sendall(head)
        beat = Beat(self.server.stop)
        for number in range(self.server.num_frames):
            beat.wait(number)
            jpeg = io.BytesIO()
            Image.fromarray(picture(number, *SIZE)).save(jpeg, "JPEG", quality=90)
            part = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg.getvalue())}\r\n\r\n"
            self.request.sendall(part.encode() + jpeg.getvalue() + b"\r\n")
        if self.server.is_silent_after:
            self.server.stop.wait(30)


def h264_pictures(num_frames: int) -> Iterator[bytes]:
    """Annex B access units, a keyframe with its parameter sets every 10."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(RATE), Fraction(1, RATE)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "threads": "1"}
    for number in range(num_frames):
        frame = av.VideoFrame.from_ndarray(picture(number, *SIZE), format="rgb24")
        frame.pts = number
        yield from (bytes(packet) for packet in encoder.encode(frame))


class RtspHandler(socketserver.StreamRequestHandler):
    """RTSP over TCP, RTP interleaved, one H.264 track."""

    server: PlayServer
    SDP = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
        "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
    )

    def handle(self) -> None:
        while (request := self.read_request()) is not None:
            method, sequence = request.split(" ")[0], re.search(r"CSeq: (\d+)", request)
            extra, body = "", ""
            match method:
                case "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                case "DESCRIBE":
                    extra, body = f"Content-Type: application/sdp\r\nContent-Length: {len(self.SDP)}\r\n", self.SDP
                case "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                case _:
                    extra = "Session: 1\r\n"
            head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence[1] if sequence else 0}\r\n{extra}\r\n{body}"
            self.request.sendall(head.encode())
            if method == "PLAY":
                self.server.num_plays += 1
                self.play()
                return

    def read_request(self) -> str | None:
        lines = []
        while line := self.rfile.readline().decode().strip():
            lines.append(line)
        return "\n".join(lines) if lines else None

    def play(self) -> None:
        beat, sequence = Beat(self.server.stop), 0
        for number, unit in enumerate(h264_pictures(self.server.num_frames)):
            beat.wait(number)
            nals = [nal for nal in re.split(rb"\x00?\x00\x00\x01", unit) if nal]
            for nal in nals:
                marker = 0x80 if nal is nals[-1] else 0
                rtp = struct.pack(">BBHII", 0x80, marker | 96, sequence & 0xFFFF, number * 3600, 1) + nal
                self.request.sendall(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                sequence += 1
        if self.server.is_silent_after:
            self.server.stop.wait(30)


class RtmpHandler(socketserver.BaseRequestHandler):
    """RTMP for one player.  Commands are found by their names: their bytes are not taken apart."""

    server: PlayServer

    def handle(self) -> None:
        self.request.settimeout(10)
        hello = self.read(1537)
        self.request.sendall(b"\x03" + bytes(8) + bytes(1528) + hello[1:])
        self.read(1536)
        self.send(1, struct.pack(">I", 1 << 20))
        self.answer("connect", text("_result"), [number(1), b"\x05", status("NetConnection.Connect.Success")])
        self.answer("createStream", text("_result"), [None, b"\x05", number(1)])
        self.answer("play", text("onStatus"), [number(0), b"\x05", status("NetStream.Play.Start")], stream=1)
        self.server.num_plays += 1
        self.play()

    def read(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            more = self.request.recv(length - len(content))
            if not more:
                raise ConnectionResetError
            content += more
        return content

    def send(self, kind: int, body: bytes, *, time_ms: int = 0, stream: int = 0) -> None:
        head = b"\x04" + time_ms.to_bytes(3, "big") + len(body).to_bytes(3, "big") + bytes([kind])
        self.request.sendall(head + stream.to_bytes(4, "little") + body)

    def answer(self, command: str, reply: bytes, values: list[bytes | None], *, stream: int = 0) -> None:
        """Wait for a command; None among the values stands for its transaction number."""
        seen, name = b"", text(command)
        while name not in seen or len(seen) < seen.index(name) + len(name) + 9:
            seen += self.read(1)
        at = seen.index(name) + len(name)
        self.send(20, reply + b"".join(seen[at : at + 9] if value is None else value for value in values), stream=stream)

    def play(self) -> None:
        beat = Beat(self.server.stop)
        for kind, time_ms, body in flv_tags(self.server.num_frames):
            beat.wait(time_ms * RATE // 1000)
            self.send(kind, body, time_ms=time_ms, stream=1)
        if self.server.is_silent_after:
            self.server.stop.wait(30)
        ended = [text("onStatus"), number(0), b"\x05", status("NetStream.Play.Stop")]
        self.send(20, b"".join(ended), stream=1)


def text(value: str) -> bytes:
    return b"\x02" + len(value).to_bytes(2, "big") + value.encode()


def number(value: float) -> bytes:
    return b"\x00" + struct.pack(">d", value)


def status(code: str) -> bytes:
    pairs = {"level": "status", "code": code, "description": "ok"}
    return b"\x03" + b"".join(text(key)[1:] + text(value) for key, value in pairs.items()) + b"\x00\x00\x09"


def flv_tags(num_frames: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, milliseconds and body of every tag of a clip."""
    file = io.BytesIO()
    write_stream(file, num_frames, "flv")
    content, at = file.getvalue(), 13
    while at + 11 <= len(content):
        length = int.from_bytes(content[at + 1 : at + 4], "big")
        time_ms = int.from_bytes(content[at + 4 : at + 7], "big")
        yield content[at], time_ms, content[at + 11 : at + 11 + length]
        at += 11 + length + 4


def write_stream(
    file: BinaryIO | str,
    num_frames: int,
    format: str,
    *,
    stop: threading.Event | None = None,
    options: dict[str, str] | None = None,
    first: int = 0,
) -> None:
    """Encode pictures with little delay; in real time where `stop` is given."""
    beat = Beat(stop) if stop is not None else None
    with av.open(file, "w", format=format, options=options or {}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
        for position in range(num_frames):
            if beat is not None:
                beat.wait(position)
            frame = av.VideoFrame.from_ndarray(picture(first + position, *SIZE), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def send_udp(port: int, num_frames: int, stop: threading.Event) -> None:
    """Send MPEG-TS in real time."""
    write_stream(f"udp://{LOOPBACK}:{port}?pkt_size=1316", num_frames, "mpegts", stop=stop)


def write_live_hls(folder: Path, num_frames: int, stop: threading.Event) -> None:
    """Write a playlist that slides along, and never say that it ends."""
    options = {"hls_time": "0.4", "hls_list_size": "4", "hls_flags": "omit_endlist+append_list"}
    write_stream(str(folder / "live.m3u8"), num_frames, "hls", stop=stop, options=options)
