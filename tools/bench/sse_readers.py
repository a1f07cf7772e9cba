"""Many readers of server-sent events in one process, each as cheap as possible."""

import gc
import os
import socket
import struct
import sys
from itertools import islice

import orjson

from .processes import Answer, act, now_s, print_answer, raise_descriptor_limit

#: Stands once in every counted event: one byte cannot arrive in two pieces.
MARK = b"~"
#: The first bytes of a stream of the service.
PREFACE = b"retry: 2000\n:\n\n"
CONNECTING = 100
ANSWER_S = 30


def readers(port: int, path: str, clients: int, acks: int) -> None:
    """Connect *clients* readers, then count events on command until stdin ends."""
    raise_descriptor_limit()
    host = "127.0.0.1"
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n"
    ).encode()
    connections: list[socket.socket] = []
    waiting = iter(range(clients))
    began_s = now_s()
    while wave := len(list(islice(waiting, CONNECTING))):
        begun = [socket.create_connection((host, port), ANSWER_S) for _ in range(wave)]
        for each in begun:
            each.sendall(request)
        for each in begun:
            greet(each)
        connections += begun
    seconds = now_s() - began_s
    acknowledge = socket.create_connection((host, acks), ANSWER_S)
    acknowledge.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    counter = Counter(connections)
    gc.collect()
    gc.disable()
    print_answer({"clients": clients, "seconds": seconds})
    while line := sys.stdin.buffer.readline():
        command = orjson.loads(line)
        print_answer({})
        print_answer(counter.count(command["events"], acknowledge))


def greet(connection: socket.socket) -> None:
    """Return once the stream has begun."""
    seen = b""
    while PREFACE not in seen:
        part = connection.recv(4096)
        assert part, f"no stream, but {seen!r}"
        seen += part
        assert seen.startswith(b"HTTP/1.1 200"), seen


class Counter:
    """Reads one client after another with blocking reads: every client gets every event anyway.

    Without epoll a client costs one system call an event.
    """

    def __init__(self, connections: list[socket.socket]) -> None:
        self._connections = connections  # a socket without a reference is closed
        for each in connections:
            each.setblocking(True)
            # A timeout of Python would cost another system call for each read.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", ANSWER_S, 0))

    def count(self, events: int, acknowledge: socket.socket) -> Answer:
        """The times at which each of the next *events* reached the last client.

        Sends one byte for each to *acknowledge*.
        """
        clients = [each.fileno() for each in self._connections]
        had = [0] * len(clients)
        at_s = []
        read = os.read
        for number in range(events):
            for place, client in enumerate(clients):
                while had[place] <= number:
                    came = read(client, 65_536)
                    assert came, "a client was dropped"
                    had[place] += came.count(MARK)
            at_s.append(now_s())
            acknowledge.send(b".")
        return {"at": at_s}


if __name__ == "__main__":
    act({"readers": readers}, sys.argv[1:])
