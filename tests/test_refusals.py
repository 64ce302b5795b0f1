"""Every refusal says what to do: the source is searched for their messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from worker.jobs.items import RejectionCode

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "model", "piqueue", "scripts", "worker")
# Tools of developers, whose messages are what they measured.
MEASURING = ("scripts/benchmarks/", "scripts/faults/", "scripts/images/")
# An instruction: an imperative that begins a clause, "must", or a value that holds one.
VERBS = (
    "add|answer|ask|check|choose|convert|copy|correct|create|download|export|find out|finish|give|"
    "grant|install|leave|let|list|listen|lower|make|name|omit|open|percent-encode|pip install|"
    "promote|put|quote|raise|read|reload|remove|rename|replace|replay|request|restore|retry|run|"
    "save|see|send|set|shorten|start|submit|train|try|unpack|upload|use|wait|write|zip"
)
INSTRUCTION = re.compile(
    rf"(?:^|[:;.,] |\b(?:or|and) )(?:{VERBS})\b|\bmust\b|\{{(?:advice|SAVE_AS_CSV)\}}",
    re.IGNORECASE,
)
# What reads tables; and how its refusals name the place: a line, a file, or the option or the body
# as a whole.
TABLES = ("api/intake/tables.py", "piqueue/commands/tables.py")
PLACE = re.compile(
    r"line (\{|1:)|\{(where|name|path|byte)\}|_bad_byte\(|--(encoding|sep) \{|the table (is|has)"
)
# What adds no words to a message that is checked where it is made.
PASSED_ON = re.compile(r"(\{\}|(\w+ )?\{\}: \{\}|\w+: \{\}|\W)*")
# Calls that collect messages instead of raising them.
COLLECTING = re.compile(r"add_problem|(?:errors|problems)\.(?:append|add)|parser\.error")
# Why an item has no scores, for which docs/using.md has a table; and outages, for which an answer
# has a Retry-After, and `piqueue doctor` says what to do.
RESULTS = {
    *("DownloadError", "HostUnavailable", "HttpProcessingError"),
    *("ImageRejected", "PhotoUnknown", "UrlRefused"),
}
OUTAGES = {"LedgerFull", "LedgerUnavailable", "StorageUnavailable", "TimeoutError"}
EXCEPTIONS = {
    "image {} is {} {}; {} takes uint8 {}": "a bug",
    "cannot reserve {} bytes of {}": "a bug",
    "the fetcher is closed": "a bug",
    "{} results for {} items": "a bug",
    "item {} arrived twice": "a bug",
    "{} of {} items arrived": "a bug",
    "image file is truncated": "the words of Pillow; it becomes a rejection",
    "exit code {}": "the last line of a subprocess that has said nothing",
    "unreachable; no answer from {}{} ({})": "an outage",
    "not a regular file; a link to a file that is missing": "the reason in a list of files",
    "cannot be read: {}": "the reason in a list of files",
    "the file is empty": "the reason in a list of files",
    "its last stream has no end": "the reason why a table is damaged",
    "the padding after a stream is no multiple of 4 bytes": "the reason why a table is damaged",
    "item": "a sentence of pydantic",
    "nothing was written:; and {} more": "the heading of a list of messages",
    "{}: {}; and {} more; 1 error; {} errors; warning: {}": "the heading of a list of messages",
}


def test_every_refusal_says_what_to_do() -> None:
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    errors = {
        called(node.exc)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc and called(node.exc)
    }
    without = {
        message: f"{path}:{line}"
        for path, tree in trees.items()
        if not path.startswith(MEASURING)
        for line, message in refusals(tree, errors - RESULTS - OUTAGES)
        if not says_what_to_do(message)
    }

    assert {text: at for text, at in without.items() if text not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(without), "an exception is not needed any more"


def test_every_refusal_of_a_table_names_the_file_or_the_line() -> None:
    without = {
        ast.unparse(node)
        for path in TABLES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call)
        and called(node) in ("BodyUnreadable", "CommandFailed", "JobRefused", "items.add_problem")
        and not PLACE.search(ast.unparse(node))
    }

    assert without == set()


def test_a_refusal_without_an_instruction_is_found() -> None:
    source = """
def check(path):
    if path.is_dir():
        raise Refused(f"{path}: there is no such file")
    detail = f"{path} is empty"
    return Refused("empty", detail)
def path_problem(path):
    return "not a picture"
def passed_on(path, error):
    raise Refused(f"{path}: {error}")
"""

    found = [message for _, message in refusals(ast.parse(source), {"Refused"})]

    assert {message for message in found if not says_what_to_do(message)} == {
        "{}: there is no such file",
        "empty; {} is empty",
        "not a picture",
    }


def test_the_documents_say_what_to_do_for_each_code_of_an_item_without_scores() -> None:
    table = (ROOT / "docs" / "using.md").read_text().partition("## Pictures without scores\n")[2]

    documented = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE)

    assert documented == [code.value for code in RejectionCode]


def says_what_to_do(message: str) -> bool:
    """Whether a message has an instruction, or no words of its own."""
    return bool(INSTRUCTION.search(message) or PASSED_ON.fullmatch(message))


def refusals(tree: ast.AST, errors: set[str]) -> Iterator[tuple[int, str]]:
    """Give the line and the text of each error that is made, and of each problem that is named."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assigned = [
            (target.id, node.value)
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        names_problems = function.name.endswith(("problem", "reason"))
        for node in (
            part for part in ast.walk(function) if isinstance(part, ast.Return | ast.Call)
        ):
            is_named = names_problems and isinstance(node, ast.Return)
            name = called(node)
            if is_named or name in errors or (name and COLLECTING.search(name)):
                names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                values = [value for target, value in assigned if target in names]
                found = (text for part in (node, *values) for text in texts(part) if text)
                yield node.lineno, "; ".join(found)


def called(node: ast.AST) -> str:
    """Return the name of what a call calls, or nothing."""
    if not isinstance(node, ast.Call):
        return ""
    match node.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name):
            return f"{owner}.{name}"
    return ""


def texts(node: ast.AST) -> Iterator[str]:
    """Give the strings of an expression; a value in one is {}, or keeps its name if it advises."""
    match node:
        case ast.Constant(value=str(text)):
            yield text.strip()
        case ast.JoinedStr(values=parts):
            yield "".join(map(_part, parts)).strip()
        case _:
            for child in ast.iter_child_nodes(node):
                yield from texts(child)


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = ast.unparse(part)
    return value if value in ("{advice}", "{SAVE_AS_CSV}") else "{}"
