"""Small changes of a module's functions, each of which should alter what the module does."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}
EXTREMES = {"min": "max", "max": "min"}
#: Lines of the log that no operator waits for.
QUIET = {"debug", "info"}
#: What these raise cannot happen, or is the business of a subclass.
IMPOSSIBLE = {"AssertionError", "NotImplementedError"}
#: Texts for people who debug.
DISPLAYS = {"__repr__", "__str__"}


@dataclass(frozen=True, slots=True)
class Change:
    """*before*, at bytes *start* to *end* of a file, becomes *after*.

    *line* is the first of the statement, where a tracer sees it; *function* is a qualified name.
    """

    path: str
    function: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        path, function, before, after = self.identity
        return f"{path}:{self.line} {function}: {before} -> {after}"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What stays when lines move: path, function, and both texts on one line."""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return self.path, self.function, before, after

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def changes_of(root: Path, path: Path) -> list[Change]:
    """All changes of one module; each leaves a text that Python compiles."""
    source = path.read_bytes()
    name = str(path.relative_to(root))
    return list(_Finder(name, source).in_body(ast.parse(source).body, ""))


class _Finder:
    """Walks the functions of a module."""

    def __init__(self, path: str, source: bytes) -> None:
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def in_body(self, body: list[ast.stmt], scope: str) -> Iterator[Change]:
        """The changes of functions, at any depth of classes."""
        for node in body:
            match node:
                case ast.ClassDef(name=name, body=inner):
                    yield from self.in_body(inner, f"{scope}{name}.")
                case (
                    ast.FunctionDef(name=name, body=inner)
                    | ast.AsyncFunctionDef(name=name, body=inner)
                ) if name not in DISPLAYS:
                    yield from self._in_function(inner, f"{scope}{name}")

    def _in_function(self, body: list[ast.stmt], function: str) -> Iterator[Change]:
        for statement in body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._in_function(statement.body, f"{function}.{statement.name}")
                continue
            if isinstance(statement, ast.Assert) or is_impossible(statement) or is_quiet(statement):
                continue
            initial = function.endswith("__init__") and isinstance(statement, ast.Assign)
            # Every use would fail without it, and so this change says little about the tests.
            for first, last, after in () if initial else statement_changes(statement):
                yield self._change(function, statement, first, last, after)
            for expression in expressions(statement):
                for after in expression_changes(expression):
                    yield self._change(function, statement, expression, expression, after)
            for inner in blocks(statement):
                yield from self._in_function(inner, function)

    def _change(
        self, function: str, statement: ast.stmt, first: ast.AST, last: ast.AST, after: str
    ) -> Change:
        start = self._offset(first, "lineno", "col_offset")
        end = self._offset(last, "end_lineno", "end_col_offset")
        before = self._source[start:end].decode()
        return Change(self._path, function, statement.lineno, start, end, before, after)

    def _offset(self, node: ast.AST, line: str, column: str) -> int:
        number: int = getattr(node, line)
        in_line: int = getattr(node, column)
        return self._starts[number - 1] + in_line


def is_impossible(statement: ast.stmt) -> bool:
    match statement:
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name)) | ast.Name(id=name)):
            return name in IMPOSSIBLE
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
            return True
    return False


def is_quiet(statement: ast.stmt) -> bool:
    """A docstring, an ellipsis, or a line of the log that no operator waits for."""
    match statement:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))):
            return name in QUIET
    return False


def blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The statements inside a compound one."""
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(statement, name, None):
            yield block
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def statement_changes(statement: ast.stmt) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """The first and the last node to replace, and the new text."""
    match statement:
        case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield statement, statement, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield statement, statement, "pass"
        case ast.Return(value=ast.expr() as value) if not is_none(value):
            yield statement, statement, "return None"
        case ast.Return() | ast.Break():
            yield statement, statement, "pass"
        case ast.Continue():
            yield statement, statement, "break"
        case ast.If(test=test) | ast.While(test=test) if not is_condition(test):
            yield test, test, f"not ({ast.unparse(test)})"
        case ast.Try(handlers=handlers, finalbody=finalbody):
            for handler in handlers:
                if not isinstance(handler.body[-1], ast.Raise):
                    yield handler.body[0], handler.body[-1], "raise"
            if finalbody:
                yield finalbody[0], finalbody[-1], "pass"


def is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def is_condition(test: ast.expr) -> bool:
    """expression_changes() has a change for it already."""
    return isinstance(test, ast.Compare | ast.BoolOp | ast.Constant) or (
        isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    )


def expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, not those of statements inside it, nor annotations."""
    skipped = (ast.stmt, ast.ExceptHandler, ast.match_case, ast.JoinedStr)
    annotation = statement.annotation if isinstance(statement, ast.AnnAssign) else None
    waiting: list[ast.AST] = [
        each for each in ast.iter_child_nodes(statement) if each is not annotation
    ]
    waiting += [case.guard for case in getattr(statement, "cases", ()) if case.guard is not None]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, skipped):
            continue
        if isinstance(node, ast.expr):
            yield node
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "cast":
                continue
        waiting += ast.iter_child_nodes(node)


def expression_changes(node: ast.expr) -> Iterator[str]:
    """Texts to stand in the place of an expression."""
    match node:
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            for index, operator in enumerate(operators):
                changed = [*operators]
                changed[index] = COMPARISONS[type(operator)]()
                yield f"({ast.unparse(ast.Compare(left, changed, comparators))})"
        case ast.BoolOp(op=operator, values=values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield f"({ast.unparse(ast.IfExp(test, orelse, body))})"
        case ast.BinOp(left=left, op=operator, right=right) if (
            type(operator) in ARITHMETIC and not is_text(left) and not is_text(right)
        ):
            yield f"({ast.unparse(ast.BinOp(left, ARITHMETIC[type(operator)](), right))})"
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args, keywords=keywords):
            yield ast.unparse(ast.Call(ast.Name(EXTREMES[name]), args, keywords))
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as number):
            yield str(number + 1)


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )
