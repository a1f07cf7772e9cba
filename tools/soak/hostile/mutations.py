"""Random faults in requests."""

import random

from .message_ends import MARK

PARTS = (
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b":", b" ", b",", b";", b'"', b"\\", b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"0\r\n\r\n", b"\xed\xa0\x80", b"\\ud800",
)  # fmt: skip


def mutate(drawn: random.Random, sent: bytes) -> bytes:
    """*sent* with one to four faults."""
    changed = bytearray(sent)
    for _ in range(drawn.randint(1, 4)):
        place = drawn.randrange(len(changed)) if changed else 0
        match drawn.randrange(5):
            case 0:
                changed[place : place + 1] = bytes([drawn.randrange(256)])
            case 1:
                del changed[place : place + drawn.randint(1, 20)]
            case 2:
                changed[place:place] = drawn.choice(PARTS)
            case 3:
                changed[place:place] = changed[max(0, place - drawn.randint(1, 40)) : place]
            case _:
                del changed[place:]
    return bytes(changed).replace(MARK.encode(), b"drawn")
