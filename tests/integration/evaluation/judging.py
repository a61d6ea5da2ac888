"""A real server that speaks the chat-completions protocol, with answers that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], str | int]
"""From what is asked to the answer's text, or to a status to fail with."""


class ChatServer:
    """Notes what it is asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append(text)
            self.keys.append(key)
            self.bodies.append(body)
            answer = self.answer(text)
        if isinstance(answer, int):
            return answer, {"error": {"message": f"no; your key was {key}", "type": "x"}}
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}


@contextmanager
def serve_chat(answer: Answer) -> Iterator[ChatServer]:
    chat = ChatServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, record = (
                chat.handle(body, self.headers.get("Authorization")) if self.path == "/v1/chat/completions" else (404, {})
            )
            data = json.dumps(record).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
