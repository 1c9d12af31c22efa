"""Answers every request with the same bytes: what the load generator is measured against.

Used where nginx is not installed.

    python -m bench.responder --port 8082
"""

from __future__ import annotations

import argparse
import select
import socket

BODY = b"x" * 1100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def serve(port: int) -> None:
    """Answer whatever comes: the requests of the generator fit into one segment each."""
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
            elif connections[descriptor].recv(65536):
                connections[descriptor].send(ANSWER)
            else:
                epoll.unregister(descriptor)
                connections.pop(descriptor).close()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="Answer every request alike.")
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)


if __name__ == "__main__":
    main()
