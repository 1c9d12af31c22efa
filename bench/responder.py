"""A server that sends the same bytes to every request, to measure the load generator itself.

Used where nginx is not installed.

    python -m bench.responder --port 8082
"""

from __future__ import annotations

import argparse
import select
import socket

BODY = b"x" * 1100
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def serve(port: int) -> None:
    """Respond to whatever is received: each request of the generator fits into one segment."""
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
                connections[descriptor].send(RESPONSE)
            else:
                epoll.unregister(descriptor)
                connections.pop(descriptor).close()


def main() -> None:
    """Parse the arguments and serve until killed."""
    parser = argparse.ArgumentParser(description="Send the same response to every request.")
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)


if __name__ == "__main__":
    main()
