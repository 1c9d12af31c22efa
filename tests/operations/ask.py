"""Stands in for a program: asks the process of the test to do the work, with its streams.

It imports as little as possible, because it is started some fifty times.
"""

import _socket
import array
import os
import sys

link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
link.connect(os.environ["STAND_INS"])
call = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
parts = [os.getcwd(), str(len(call)), *call]
parts += [f"{name}={value}" for name, value in os.environ.items()]
link.sendmsg(
    [b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]).tobytes())]
)
link.sendall("\0".join(parts).encode(errors="surrogateescape"))
link.shutdown(_socket.SHUT_WR)
sys.exit(int(link.recv(16) or b"1"))
