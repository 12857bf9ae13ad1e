"""What a program prints on one stream, as much of it as is worth keeping."""

HEAD_BYTES = 2**20
TAIL_BYTES = 2**16
# A program that prints more on one stream is killed.
MOST_BYTES = 64 * 2**20


class Stream:
    """Keeps the first ``HEAD_BYTES`` and the last ``TAIL_BYTES`` of what it is given."""

    __slots__ = ("_head", "_tail", "total")

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        #: Bytes that were given.
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self.total += len(data)
        room = HEAD_BYTES - len(self._head)
        if room:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            if len(self._tail) > 2 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]

    @property
    def too_much(self) -> bool:
        """Whether it is more than a program may print."""
        return self.total > MOST_BYTES

    @property
    def whole(self) -> bool:
        """Whether nothing of it was left out."""
        return self.total == len(self._head) + len(self._tail)

    def text(self) -> bytes:
        """Beginning and end, with a line between them that says how much is left out."""
        if self.whole:
            return bytes(self._head + self._tail)
        tail = self._tail[-TAIL_BYTES:]
        left_out = self.total - len(self._head) - len(tail)
        return bytes(self._head) + b"\n[... %d bytes are left out here ...]\n" % left_out + tail

    def end(self) -> bytes:
        """The end, as much of it as is there in one piece: all, or the last ``TAIL_BYTES``."""
        return bytes(self._head + self._tail if self.whole else self._tail[-TAIL_BYTES:])
