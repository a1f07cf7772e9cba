"""The operations of a program on the files of a folder, from a trace of its system calls."""

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

#: Every call that changes a file, a name, or what is durable. Calls that are not modelled below are
#: in the list to be refused.
CALLS = (
    "openat,open,creat,pwrite64,write,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,"
    "copy_file_range,sendfile,splice,unlink,unlinkat,rename,renameat,renameat2,link,linkat,"
    "mkdir,mkdirat,rmdir,fsync,fdatasync,sync_file_range,msync,sync,syncfs"
)
TIMEOUT_S = 150


class Create(NamedTuple):
    """A file exists from here on; *emptied* if it existed before."""

    path: str
    emptied: bool


class Write(NamedTuple):
    path: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    path: str
    size: int


class MakeFolder(NamedTuple):
    path: str


class Remove(NamedTuple):
    """Removes a file or an empty folder."""

    path: str


class Rename(NamedTuple):
    old: str
    new: str


class Sync(NamedTuple):
    """Changes to a file or folder before the operation *begun* are durable."""

    path: str
    begun: int


class Note(NamedTuple):
    """A line that the program wrote to its notes (lives.py)."""

    text: str


Operation = Create | Write | Truncate | MakeFolder | Remove | Rename | Sync | Note

_CALL = re.compile(rb"^(\d+) +(\w+)\((.*)$", re.DOTALL)
_RESUMED = re.compile(rb"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_UNFINISHED = b"<unfinished ...>"
_DESCRIPTOR = re.compile(rb"^(\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")
_STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_RESULT = re.compile(rb"\)\s+= (-1 |\d+)(?:<[^>]*>)?")


def record(
    command: Sequence[str], folder: Path, environment: dict[str, str], *, slow: str | None = None
) -> None:
    """Run *command* in *folder*, with the trace in its file `trace`.

    *slow* is a call that is delayed, as for strace's --inject. Raises RuntimeError when the
    command fails.
    """
    delays = [] if slow is None else [f"--inject={slow}"]
    strace = ["strace", "--follow-forks", "--seccomp-bpf", "--decode-fds=path", "--strings-in-hex"]
    strace += ["--string-limit=4000000", "--quiet=all", f"--trace={CALLS}", *delays]
    ended = subprocess.run(
        [*strace, f"--output={folder / 'trace'}", *command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")


def read(folder: Path) -> list[Operation]:
    """The operations in *folder*, from the trace in it. Raises NotModelled."""
    parser = _Parser(folder)
    with (folder / "trace").open("rb") as lines:
        return parser.parse(lines)


class NotModelled(Exception):
    """The program used a call that the model of the disk does not know."""


class _Parser:
    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._notes = self._folder + b"/notes"
        self._done: list[Operation] = []
        #: Where the next plain write to an open file goes.
        self._offsets: dict[tuple[bytes, int], int] = {}
        self._calls: dict[bytes, Callable[[bytes, int, int], None]] = {
            b"openat": self._open,
            b"pwrite64": self._write_at,
            b"write": self._write,
            b"ftruncate": self._truncate,
            b"unlink": lambda arguments, *_: self._add(Remove, *_paths(arguments)),
            b"rmdir": lambda arguments, *_: self._add(Remove, *_paths(arguments)),
            b"unlinkat": lambda arguments, *_: self._add(Remove, *_paths_at(arguments)),
            b"mkdir": lambda arguments, *_: self._add(MakeFolder, *_paths(arguments)),
            b"rename": lambda arguments, *_: self._add(Rename, *_paths(arguments)),
            b"fsync": self._sync,
            b"fdatasync": self._sync,
        }

    def parse(self, lines: Iterable[bytes]) -> list[Operation]:
        waiting: dict[tuple[bytes, bytes], tuple[bytes, int]] = {}
        for line in lines:
            if resumed := _RESUMED.match(line):
                thread, name, rest = resumed.groups()
                if (thread, name) in waiting:  # else it is a note
                    arguments, begun = waiting.pop((thread, name))
                    self._call(name, arguments + rest, begun)
            elif call := _CALL.match(line):
                thread, name, arguments = call.groups()
                if name == b"write" and self._note(arguments):
                    continue  # counts from the start of the call: a reader may be fast
                if arguments.rstrip().endswith(_UNFINISHED):
                    before = arguments.rstrip()[: -len(_UNFINISHED)]
                    waiting[thread, name] = before, len(self._done)
                else:
                    self._call(name, arguments, len(self._done))
        return self._done

    def _call(self, name: bytes, arguments: bytes, begun: int) -> None:
        end = arguments[arguments.rfind(b") ") :]
        results = _RESULT.findall(end)
        if not results:
            raise NotModelled(f"no result of {name.decode()} in {end!r}")
        if results[-1] == b"-1 ":
            return
        if name in self._calls:
            self._calls[name](arguments, int(results[-1]), begun)
        elif name in {b"sync", b"syncfs"} or any(map(self._is_inside, _all_paths(arguments))):
            raise NotModelled(f"{name.decode()}({arguments[:200].decode(errors='replace')}")

    def _is_inside(self, path: bytes) -> bool:
        return (path + b"/").startswith(self._folder + b"/")

    def _note(self, arguments: bytes) -> bool:
        descriptor = _DESCRIPTOR.match(arguments)
        if descriptor is None or _path(descriptor[2]) != self._notes:
            return False
        text = _STRING.search(arguments)
        assert text is not None
        self._done += map(Note, _text(text).decode().splitlines())
        return True

    def _open(self, arguments: bytes, descriptor: int, _: int) -> None:
        [path] = _paths_at(arguments)
        self._offsets[path, descriptor] = 0
        if b"O_CREAT" in arguments:
            self._add(Create, path, more=(b"O_TRUNC" in arguments,))

    def _write_at(self, arguments: bytes, written: int, _: int) -> None:
        path, text, rest = _write_arguments(arguments)
        offset = rest.split(b",")[2].split(b")")[0]
        self._add(Write, path, more=(int(offset), text[:written]))

    def _write(self, arguments: bytes, written: int, _: int) -> None:
        path, text, _rest = _write_arguments(arguments)
        key = path, int(arguments.partition(b"<")[0])
        offset = self._offsets.get(key, 0)
        self._offsets[key] = offset + written
        self._add(Write, path, more=(offset, text[:written]))

    def _truncate(self, arguments: bytes, *_: int) -> None:
        descriptor = _DESCRIPTOR.match(arguments)
        assert descriptor is not None
        size = arguments[descriptor.end() :].split(b",")[1].split(b")")[0]
        if not descriptor[3]:
            self._add(Truncate, _path(descriptor[2]), more=(int(size),))

    def _sync(self, arguments: bytes, _: int, begun: int) -> None:
        descriptor = _DESCRIPTOR.match(arguments)
        assert descriptor is not None
        if not descriptor[3]:
            self._add(Sync, _path(descriptor[2]), more=(begun,))

    def _add(
        self, kind: Callable[..., Operation], *paths: bytes, more: Sequence[object] = ()
    ) -> None:
        """The operation, if it is in the folder."""
        inside = [*filter(self._is_inside, paths)]
        if inside and inside != [self._notes]:
            assert len(inside) == len(paths), "renamed out of the folder"
            named = [os.fsdecode(path[len(self._folder) + 1 :]) for path in inside]
            self._done.append(kind(*named, *more))


def _path(written: bytes) -> bytes:
    return bytes.fromhex(written.replace(b"\\x", b"").decode()) if b"\\x" in written else written


def _text(string: re.Match[bytes]) -> bytes:
    if string[2]:
        raise NotModelled("a string that is longer than strace writes")
    return bytes.fromhex(string[1].replace(b"\\x", b"").decode())


def _paths(arguments: bytes) -> list[bytes]:
    return [os.path.normpath(_text(each)) for each in _STRING.finditer(arguments)]


def _all_paths(arguments: bytes) -> list[bytes]:
    """The paths in *arguments*, also those of descriptors."""
    return _paths(arguments) + [
        _path(each) for each in re.findall(rb"<((?:\\x[0-9a-f]{2})+)>", arguments)
    ]


def _paths_at(arguments: bytes) -> list[bytes]:
    """The path of a call with a descriptor of a folder, and a path in it."""
    folder = _DESCRIPTOR.match(arguments)
    assert folder is not None
    text = _STRING.search(arguments, folder.end())
    assert text is not None
    return [os.path.normpath(os.path.join(_path(folder[2]), _text(text)))]  # noqa: PTH118 -- bytes


def _write_arguments(arguments: bytes) -> tuple[bytes, bytes, bytes]:
    """The path, the bytes, and the other arguments of a write. A deleted file has no path."""
    descriptor = _DESCRIPTOR.match(arguments)
    text = _STRING.search(arguments)
    assert descriptor is not None
    assert text is not None
    path = b"" if descriptor[3] else _path(descriptor[2])
    return path, _text(text), arguments[text.end() :]
