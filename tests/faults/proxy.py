"""A proxy in front of an S3 server; the proxy can be slow, answer with 503, or be gone for a while."""

from __future__ import annotations

import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Proxy:
    """Passes requests on to a server, and counts them.

    Attributes:
        requests: Number of requests so far.
        delay_s: Seconds to wait before each answer.
        refusals: Number of requests to answer with 503; every second request is refused until then.
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
        """The proxy's address; it stays the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start to listen; after a restart, the port is the same as before."""
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
                # A killed client drops its connections; this must not print a traceback.
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening, so that new connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait_for(self, requests: int, limit_s: float = 120) -> None:
        """Wait until this many requests have arrived."""
        deadline = time.monotonic() + limit_s
        while self.requests < requests:
            assert time.monotonic() < deadline, f"{self.requests} requests of {requests}"
            time.sleep(0.01)

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """Pass one request on to the server, or refuse it with 503."""
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
