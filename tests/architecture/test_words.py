"""Words and names as a test: plain English, and names that need no explanation."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("eventjobs", "projections", "tools", "tests")
FILES = {path: path.read_text() for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))}
MODULES = {path: ast.parse(text) for path, text in FILES.items()}
PRODUCT = [
    path for path in FILES if path.relative_to(ROOT).parts[0] in ("eventjobs", "projections")
]
#: The names of these classes are those of the OpenAPI document, such as Job.
SCHEMAS = ROOT / "eventjobs/http/schemas"

#: Speech and furniture. A sentence names its subject, and what happens in the domain's words.
WORDS = re.compile(
    r"\b(told|whoever|whatever|somebody|nobody|by then|comes to|at work|elsewhere|desks?|rooms?)\b",
    re.IGNORECASE,
)
#: What a variable holds is a thing with a name: payload, line, response, selected.
VARIABLES = {"told", "said", "found", "made", "known"}
PARTICIPLE = re.compile(
    r"[a-z]{2,}ed|begun|born|bought|bound|brought|built|caught|done|drawn|felt|found|given|gone"
    r"|heard|held|kept|known|made|meant|met|said|seen|shown|taken|thought|told|understood|written"
)
#: Verbs and nouns that only look like participles.
NO_PARTICIPLES = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed"}
#: The words of tests/support/decisions.py: given(...).when(...).refused(...).
SENTENCES = {"given", "refused"}
#: Gerunds and participles that are the field's nouns for a thing.
NOUNS = {"encoding", "fencing", "logging", "routing", "signing", "recorded", "calling", "waiting"}
ADJECTIVES = {"external", "full", "plain", "shared", "together"}


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def allow_none(places: list[str], instead: str) -> None:
    assert not places, f"{instead}:\n" + "\n".join(places)


def prose(text: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each docstring and comment, with the line it begins on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str() as docstring), lineno=line), *_]:
                    yield line, docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_sentences_are_in_the_words_of_the_domain() -> None:
    words = [
        f"{at(path, line + sentence[: match.start()].count(chr(10)))}: {match[0]}"
        for path, text in FILES.items()
        for line, sentence in prose(text, MODULES[path])
        for match in WORDS.finditer(sentence)
    ]
    allow_none(words, "name the subject, and say the event as the domain does")


def variables(node: ast.AST) -> Iterator[str]:
    """Names of variables, parameters and attributes that *node* sets."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.arg(arg=name):
            yield name


def test_variables_are_named_after_what_they_hold() -> None:
    vague = [
        f"{at(path, getattr(node, 'lineno', 0))}: {name}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        for name in variables(node)
        if name.strip("_") in VARIABLES
    ]
    allow_none(vague, "payload, line, body, response, job, selected ...")


def is_participle(name: str) -> bool:
    return PARTICIPLE.fullmatch(name) is not None and name not in NO_PARTICIPLES | SENTENCES


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    yield from map(ast.unparse, node.decorator_list)


def test_functions_are_verbs_or_nouns() -> None:
    """A property may be a participle, because it says how a thing is; a handler has any name."""
    participles = [
        f"{at(path, node.lineno)}: {node.name}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and is_participle(node.name.strip("_"))
        and not any(re.match(r"(cached_)?property|handler\(", each) for each in decorators(node))
    ]
    allow_none(participles, "name what it does, or what it returns")


def test_modules_are_named_after_a_thing() -> None:
    """Packages, too; of tests, the helpers."""
    names = {path.parent if path.stem == "__init__" else path.with_suffix("") for path in FILES}
    vague = [
        str(path.relative_to(ROOT))
        for path in sorted(names)
        if (
            is_participle(path.name)
            or re.fullmatch("[a-z]+ing", path.name)
            or path.name in ADJECTIVES
        )
        and path.name not in NOUNS
    ]
    allow_none(vague, "the noun for what is in it; a gerund or an adjective says too little")


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path in PRODUCT:
        if SCHEMAS in path.parents:
            continue
        for node in ast.walk(MODULES[path]):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(at(path, node.lineno))
    twice = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    allow_none(twice, "name each after what it alone is")
