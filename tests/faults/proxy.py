"""A server in front of an S3 server that can be slow, answer 503, or be gone for a while."""

from __future__ import annotations

import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Proxy:
    """Passes requests on to a server, and counts them.

    Attributes:
        requests: So far.
        delay_s: Before each answer.
        refusals: So many requests are answered with 503, each second one.
    """

    def __init__(self, target: str) -> None:
        self.target = urlparse(target)
        self.requests = self.refused = self.refusals = 0
        self.delay_s = 0.0
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address, the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the port of before."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy.pass_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
                # A client that was killed closes its connections.
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more: who connects is refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_for(self, requests: int, limit_s: float = 120) -> None:
        """Wait until so many requests have come."""
        deadline = time.monotonic() + limit_s
        while self.requests < requests:
            assert time.monotonic() < deadline, f"{self.requests} requests of {requests}"
            time.sleep(0.01)

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.requests += 1
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        time.sleep(self.delay_s)
        if self.refused < self.refusals and self.requests % 2:
            self.refused += 1
            request.send_response(503)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        connection = HTTPConnection(self.target.hostname or "", self.target.port, timeout=60)
        connection.request(request.command, request.path, body, dict(request.headers))
        answer = connection.getresponse()
        content = answer.read()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        request.wfile.write(content)
        connection.close()
