"""An S3 on a loopback socket that passes everything on to another one, and fails as it is told."""

import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

from tests.rekognition_server import Reply, Silence

Fault = Reply | Silence


def refusal(code: str, status: int = 400) -> Reply:
    """An error in the words of S3's REST API."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>"
    return Reply(status, body.encode(), "application/xml")


EXPIRED_TOKEN = refusal("ExpiredToken")
DENIED = refusal("AccessDenied", 403)
NO_BUCKET = refusal("NoSuchBucket", 404)
SLOW_DOWN = refusal("SlowDown", 503)

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass
class _Script:
    method: str
    fault: Fault
    times: float
    after: int
    struck: threading.Event = field(default_factory=threading.Event)


class S3Proxy(ThreadingHTTPServer):
    """Serves at ``url`` during its ``with`` block; ``calls`` are the methods and paths of all requests.

    Args:
        origin: address of the S3 that answers.
    """

    request_queue_size = 128

    def __init__(self, origin: str) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls: list[tuple[str, str]] = []
        self._origin = urlsplit(origin).netloc
        self._scripts: list[_Script] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def fail(self, method: str, fault: Fault, *, times: float = 1, after: int = 0) -> threading.Event:
        """As :meth:`tests.rekognition_server.RekognitionServer.fail`, by the HTTP method of S3's operation."""
        script = _Script(method, fault, times, after)
        with self._lock:
            self._scripts.append(script)
        return script.struck

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._scripts.clear()

    def reply(self, request: tuple[str, str], headers: Mapping[str, str], body: bytes) -> tuple[Reply, dict[str, str]]:
        """The answer to a request and its headers.

        Raises:
            ConnectionError: there is to be none.
        """
        fault = self._met(request)
        if isinstance(fault, Reply):
            return fault, {}
        if fault is Silence.HANG:
            self._stopped.wait()
        if fault in {Silence.HANG, Silence.DROP}:
            raise ConnectionError
        with closing(HTTPConnection(self._origin)) as origin:
            origin.request(*request, body, {name: value for name, value in headers.items() if _passes(name)})
            answer = origin.getresponse()
            reply = Reply(answer.status, answer.read(), answer.headers.get("Content-Type", ""))
            told = {name: value for name, value in answer.headers.items() if _passes(name) and name != "Content-Type"}
        if fault is Silence.DROP_AFTER:
            raise ConnectionError
        return reply, told

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that gave up

    def _met(self, request: tuple[str, str]) -> Fault | None:
        with self._lock:
            self.calls.append(request)
            for script in self._scripts:
                if script.method != request[0] or not script.times:
                    continue
                if script.after:
                    script.after -= 1
                    continue
                script.times -= 1
                script.struck.set()
                return script.fault
        return None


class _Exchange(BaseHTTPRequestHandler):
    """One request on a connection of its own."""

    server: S3Proxy
    protocol_version = "HTTP/1.1"  # whose clients ask before they send an object
    timeout = 10

    def do_GET(self) -> None:
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with suppress(ConnectionError):
            reply, headers = self.server.reply((self.command, self.path), dict(self.headers.items()), body)
            self.send_response_only(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)

    do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        pass


def _passes(header: str) -> bool:
    return header.lower() not in _HOP_BY_HOP
