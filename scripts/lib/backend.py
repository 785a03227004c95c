#!/usr/bin/env python3
"""A backend: an HTTP server that says who it is and from which address it was asked.

Usage: backend.py NAME PORT [PORT ...]

Answers every GET with NAME as text and the peer's address in the header `X-Seen-From`; the latter shows which source
address a packet had after the gateway's translation. Prints "listening" once every port accepts connections, and runs
until it is ended.
"""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Backend(BaseHTTPRequestHandler):
    # Keeps connections open between requests unless the client says otherwise.
    protocol_version = "HTTP/1.1"
    # One segment for each answer: without it a kept-open connection waits for delayed acknowledgements.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        body = f"{self.server.name}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Seen-From", self.client_address[0])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing for each request."""


class Server(ThreadingHTTPServer):
    # The standard library's 5 overflows when several clients open connections at the same time.
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, name, port):
        self.name = name
        super().__init__(("0.0.0.0", port), Backend)

    def server_bind(self):
        """Binds without HTTPServer's look-up of the host's name, which would ask a DNS server that is not there."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.name, self.server_address[1]


def main():
    name, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
    servers = [Server(name, port) for port in ports]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
