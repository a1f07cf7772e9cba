"""A model of a disk that can lose its power: durable content, page cache, and what a cut leaves."""

import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

from .trace import Create, MakeFolder, Note, Operation, Remove, Rename, Sync, Truncate, Write

SECTOR_BYTES = 512

#: How a file system keeps names; all keep the data of a file once that file is synced.
#:
#: ordered  names change in order, and any sync commits all earlier changes; of the others the first
#:          few are kept (journalled metadata: ext4, XFS, btrfs)
#: ext4     as ordered, but a sync of a file that was overwritten in place commits no names
#: strict   a name is kept once its folder is synced; of the others any, in any order (POSIX)
Rules = Literal["ordered", "ext4", "strict"]
RULES: tuple[Rules, ...] = get_args(Rules)[::-1]  # the weakest guarantees first

#: How much of the unsynced changes a cut leaves.
Left = Literal["nothing", "everything", "something"]

#: Files by their paths, and folders by theirs, with "/" at the end and no content.
Image = dict[str, bytes]


class File:
    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[tuple[int, Write | Truncate]] = []
        self.size = 0
        #: Whether a sync has to commit the metadata: the file is new, or its size has changed.
        self.resized = True
        self._seen: bytes | None = b""

    def change(self, index: int, change: Write | Truncate) -> None:
        self.pending.append((index, change))
        self._seen = None
        if isinstance(change, Truncate):
            size = change.size
        else:
            size = max(self.size, change.offset + len(change.data))
        self.resized |= size != self.size
        self.size = size

    def sync(self, begun: int) -> None:
        for index, change in self.pending:
            if index < begun:
                _put(self.durable, change)
        self.pending = [each for each in self.pending if each[0] >= begun]

    def read(self) -> bytes:
        """The content that programs read."""
        if self._seen is None:
            content = bytearray(self.durable)
            for _, change in self.pending:
                _put(content, change)
            self._seen = bytes(content)
        return self._seen

    def left(self, left: Left, draw: random.Random) -> bytes:
        """The content that a cut leaves."""
        if left == "everything":
            return self.read()
        if left == "something" and self.pending:
            return self._torn(draw)
        return bytes(self.durable)

    def _torn(self, draw: random.Random) -> bytes:
        """Some of the writes, and some sectors of some: disks and kernels reorder them."""
        content = bytearray(self.durable)
        cut = draw.randrange(len(self.pending) + 1)
        likely = draw.choice((0.1, 0.5, 0.9, 0.97))
        manner = draw.randrange(5)
        for number, (_, change) in enumerate(self.pending):
            match manner:
                case 0:  # the first ones, and a part of the next
                    if number < cut:
                        _put(content, change)
                    elif number == cut:
                        _put_sectors(content, change, draw, 0.5)
                case 1:  # any of them
                    if draw.random() < likely:
                        _put(content, change)
                case 2:  # any sectors
                    _put_sectors(content, change, draw, likely)
                case 3:  # all but one
                    if number != cut:
                        _put(content, change)
                case _:  # the last ones alone, nearly whole
                    if number >= cut:
                        _put_sectors(content, change, draw, 0.97)
        return bytes(content)


def _put(content: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, Truncate):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
    else:
        end = change.offset + len(change.data)
        content.extend(bytes(max(end - len(content), 0)))
        content[change.offset : end] = change.data


def _put_sectors(
    content: bytearray, change: Write | Truncate, draw: random.Random, likely: float
) -> None:
    if isinstance(change, Truncate):
        _put(content, change)
        return
    at, end = change.offset, change.offset + len(change.data)
    while at < end:
        until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if draw.random() < likely:
            part = change.data[at - change.offset : until - change.offset]
            _put(content, Write(change.path, at, part))
        at = until


class Folder:
    def __init__(self) -> None:
        self.durable: dict[str, Node] = {}
        self.seen: dict[str, Node] = {}


Node = File | Folder


class Edit(NamedTuple):
    """A change of a name: it means *node* from now on; None removes it."""

    folder: Folder
    name: str
    node: Node | None


class Disk:
    """A folder, empty at first, that operations change."""

    def __init__(self, rules: Rules) -> None:
        self.notes: list[str] = []
        self._rules = rules
        self._root = Folder()
        #: Changes of names that are not durable, by operation.
        self._pending: list[tuple[int, list[Edit]]] = []
        self._index = 0

    def do(self, operation: Operation) -> None:
        match operation:
            case Note(text):
                self.notes.append(text)
            case Create(path, emptied):
                self._create(path, emptied)
            case Write(path) | Truncate(path):
                if isinstance(file := self._find(path), File):
                    file.change(self._index, operation)
            case MakeFolder(path):
                folder, name = self._place(path)
                self._edit(Edit(folder, name, Folder()))
            case Remove(path):
                folder, name = self._place(path)
                self._edit(Edit(folder, name, None))
            case Rename(old, new):
                (folder, name), node = self._place(old), self._find(old)
                self._edit(Edit(folder, name, None), Edit(*self._place(new), node))
            case Sync(path, begun):
                self._sync(path, begun)
        self._index += 1

    def _create(self, path: str, emptied: bool) -> None:
        file = self._find(path)
        if file is None:
            folder, name = self._place(path)
            self._edit(Edit(folder, name, File()))
        elif emptied and isinstance(file, File):
            file.change(self._index, Truncate(path, 0))

    def _find(self, path: str) -> Node | None:
        node: Node | None = self._root
        for name in filter(None, path.split("/")):
            node = node.seen.get(name) if isinstance(node, Folder) else None
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        node = self._find(folder)
        assert isinstance(node, Folder), path
        return node, name

    def _edit(self, *edits: Edit) -> None:
        for each in edits:
            _name(each.folder.seen, each)
        self._pending.append((self._index, [*edits]))

    def _sync(self, path: str, begun: int) -> None:
        node = self._find(path)
        if node is None:
            return
        commits = self._rules != "strict" and self._commits(node, begun)
        if isinstance(node, File):
            node.sync(begun)
        left: list[tuple[int, list[Edit]]] = []
        for index, edits in self._pending:
            rest = []
            for each in edits:
                if index < begun and (commits or each.folder is node):
                    _name(each.folder.durable, each)
                else:
                    rest.append(each)
            if rest:
                left.append((index, rest))
        self._pending = left

    def _commits(self, node: Node, begun: int) -> bool:
        """Whether syncing *node* puts all earlier names on the disk."""
        if self._rules == "ordered":
            return True
        if isinstance(node, File):
            resized, node.resized = node.resized, False
            return resized
        earlier = (each for index, edits in self._pending if index < begun for each in edits)
        return any(each.folder is node for each in earlier)

    # --- what a cut leaves

    def image(self, left: Left, draw: random.Random) -> Image:
        if left == "everything":
            return dict(_walk(self._root, lambda folder: folder.seen, lambda file: file.read()))
        kept: dict[int, dict[str, Node]] = {}
        for edits in self._surviving_edits(draw) if left == "something" else ():
            for each in edits:
                names = kept.setdefault(id(each.folder), dict(each.folder.durable))
                _name(names, each)
        return dict(
            _walk(
                self._root,
                lambda folder: kept.get(id(folder), folder.durable),
                lambda file: file.left(_part(left, draw), draw),
            )
        )

    def _surviving_edits(self, draw: random.Random) -> list[list[Edit]]:
        """Unsynced changes of names that survive the cut."""
        edits = [each for _, each in self._pending]
        if self._rules != "strict" or draw.random() < 0.25:
            return edits[: draw.randrange(len(edits) + 1)]
        likely = draw.choice((0.2, 0.5, 0.8))
        kept = [each for each in edits if draw.random() < likely]
        if draw.random() < 0.5:  # each folder by itself: a file that moved may be in neither
            kept = [[each for each in some if each.node or draw.random() < 0.7] for some in kept]
        return kept


def _name(names: dict[str, Node], edit: Edit) -> None:
    if edit.node is None:
        names.pop(edit.name, None)
    else:
        names[edit.name] = edit.node


def _part(left: Left, draw: random.Random) -> Left:
    """How much a cut leaves of one file, when it leaves *left* of the whole disk."""
    if left != "something":
        return left
    return draw.choices(("nothing", "everything", "something"), (1, 1, 3))[0]


def _walk(
    folder: Folder,
    names: Callable[[Folder], dict[str, Node]],
    content: Callable[[File], bytes],
    prefix: str = "",
) -> Iterator[tuple[str, bytes]]:
    for name, node in names(folder).items():
        if isinstance(node, Folder):
            yield f"{prefix}{name}/", b""
            yield from _walk(node, names, content, f"{prefix}{name}/")
        else:
            # The -shm file of SQLite is shared memory, and rebuilt from the -wal.
            yield f"{prefix}{name}", b"" if name.endswith("-shm") else content(node)
