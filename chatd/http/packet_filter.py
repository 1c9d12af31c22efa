"""Has the kernel drop packets of some networks that want to connect to a listening socket.

A classic BPF program (Linux: Documentation/networking/filter.rst, socket(7) SO_ATTACH_FILTER) is
run for each packet that reaches the listening socket, which are those of handshakes: connections
that are open have sockets of their own. Clients try again after a second or more, as if the packet
had been lost.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
"""Not in the module `socket` (asm-generic/socket.h)."""

MAX_NETWORKS: Final = 60
"""A socket has little memory for programs (net.core.optmem_max, 20 KiB on older systems), and to
attach one takes a millisecond for a hundred networks."""

_LOAD_WORD: Final = 0x20
_LOAD_HALF_WORD: Final = 0x28
_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_JUMP: Final = 0x05
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06

# Offsets from here on are those in the IP header.
_IP_HEADER: Final = -0x100000
_IPV4_SOURCE: Final = _IP_HEADER + 12
_IPV6_SOURCE: Final = _IP_HEADER + 8

_DROP: Final = 0
_ACCEPT: Final = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]
"""Its code, how many instructions are skipped if a comparison is true and if not, and its operand
(linux/filter.h, `struct sock_filter`)."""


def drop_packets(listening: socket.socket, networks: Iterable[str]) -> bool:
    """From now on drop what comes from these IPv4 addresses and IPv6 /48 networks only.

    Returns whether the kernel can do that; nothing is dropped if it cannot.
    """
    instructions = list(program(networks))
    code = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    # `struct sock_fprog`
    wanted = struct.pack("@HP", len(instructions), ctypes.addressof(buffer))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, wanted)
    except OSError:
        return False
    return True


def drop_nothing(listening: socket.socket) -> None:
    """Undo `drop_packets`, also that of another process that has had the socket before."""
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except OSError:  # there is no filter, or there are none on this system
        pass


def program(networks: Iterable[str]) -> Iterator[Instruction]:
    """The instructions that compare the source of a packet with each of these networks."""
    parsed = [ipaddress.ip_network(each) for each in networks]
    ipv4 = [
        instruction
        for each in parsed
        if each.version == 4
        for instruction in (
            (_JUMP_IF_EQUAL, 0, 1, int(each.network_address)),
            (_RETURN, 0, 0, _DROP),
        )
    ]
    yield _LOAD_BYTE, 0, 0, _unsigned(_IP_HEADER)
    yield _AND, 0, 0, 0xF0
    yield _JUMP_IF_EQUAL, 1, 0, 0x40
    yield _JUMP, 0, 0, 1 + len(ipv4) + 1
    yield _LOAD_WORD, 0, 0, _unsigned(_IPV4_SOURCE)
    yield from ipv4
    yield _RETURN, 0, 0, _ACCEPT
    for each in parsed:
        if each.version == 6:
            prefix = int(each.network_address) >> 80
            yield _LOAD_WORD, 0, 0, _unsigned(_IPV6_SOURCE)
            yield _JUMP_IF_EQUAL, 0, 3, prefix >> 16
            yield _LOAD_HALF_WORD, 0, 0, _unsigned(_IPV6_SOURCE + 4)
            yield _JUMP_IF_EQUAL, 0, 1, prefix & 0xFFFF
            yield _RETURN, 0, 0, _DROP
    yield _RETURN, 0, 0, _ACCEPT


def _unsigned(offset: int) -> int:
    return offset & 0xFFFFFFFF
