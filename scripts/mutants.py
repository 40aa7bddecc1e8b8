"""Mutation testing: change the code in small ways and report changes that no test detects.

    python scripts/mutants.py                                   # 20 mutations, up to minutes each
    python scripts/mutants.py --count 100 --seed 2 --jobs 4
    python scripts/mutants.py --only datamodules/sampler.py --count 10

Mutations are sampled with a seed: a comparison or an operator is replaced by another, a number is
increased by one, a boolean or a condition is negated, `or` becomes `and`, a statement is deleted.
Each is applied to a copy of the project, where the tests of the file are run: for a/b.py these are
tests/a/test_b.py, or else the tests that name its module. A mutation that survives may also be
equivalent to the original code.
"""

from __future__ import annotations

import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rate.errors import ConfigError
from rate.workers.pool import available_cores
from trainers.commands.console import count, make_parser, user_errors

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rate", "datamodules", "trainers", "scripts")
_COPIED = (
    *PACKAGES,
    *("tests", "notebooks", "data/results", "data/README.md"),
    *("pyproject.toml", "requirements.lock", "README.md", "CHANGELOG.md", "Makefile"),
    *("docs", "mkdocs.yml"),
)
_NOT_COPIED = ("__pycache__", ".*cache")
# Replacements of operators.
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
_NO_TESTS = 5  # exit code of pytest where none was selected
_NAMES = {"stdev": "pstdev", "min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutation:
    """A replacement of a range of bytes in a file.

    Attributes:
        path: The file, relative to the project.
        line: Line of the range, counted from 1.
        start: First byte.
        stop: Byte after the last.
        old: The text in the range.
        new: The replacement.
    """

    path: Path
    line: int
    start: int
    stop: int
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.path}:{self.line}: {old} -> {new}"

    def apply(self, content: bytes) -> bytes:
        """Returns the mutated content of the file."""
        return content[: self.start] + self.new.encode() + content[self.stop :]


def mutations(path: Path, text: str) -> list[Mutation]:
    """Returns all mutations of a file, ordered by position."""
    tree = ast.parse(text)
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    left_alone = _excluded(tree)
    found = []
    for node in ast.walk(tree):
        if id(node) in left_alone:
            continue
        for place, new in _changes(node, text):
            start = starts[place.lineno - 1] + place.col_offset
            stop = starts[(place.end_lineno or 1) - 1] + (place.end_col_offset or 0)
            old = text.encode()[start:stop].decode()
            found.append(Mutation(path, place.lineno, start, stop, old, new))
    return sorted(found, key=lambda each: (each.start, each.stop, each.new))


def _excluded(tree: ast.AST) -> set[int]:
    """Ids of nodes in types, decorators, messages, and code for type checkers or scripts."""
    found: set[int] = set()

    def leave(node: ast.AST | None) -> None:
        if node is not None:
            found.update(id(each) for each in ast.walk(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            leave(node.returns)
            for decorator in node.decorator_list:
                leave(decorator)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            leave(node.annotation)
        elif isinstance(node, ast.Raise | ast.JoinedStr) or (
            isinstance(node, ast.If)
            and ast.unparse(node.test)
            in (
                "TYPE_CHECKING",
                "__name__ == '__main__'",
            )
        ):
            leave(node)
    return found


def _changes(node: ast.AST, text: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yields the parts of a node that can be replaced, with their replacements."""

    def source(part: ast.AST) -> str:
        return ast.get_source_segment(text, part) or ""

    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = source(node.left), source(node.comparators[0])
        yield node, f"{left} {_COMPARISONS[type(node.ops[0])]} {right}"
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield node, f"({source(node.left)}) {_OPERATORS[type(node.op)]} ({source(node.right)})"
    elif isinstance(node, ast.BoolOp):
        word = " and " if isinstance(node.op, ast.Or) else " or "
        yield node, word.join(f"({source(value)})" for value in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, f"({source(node)} + 1)"
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node.test, f"not ({source(node.test)})"
    elif isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in _NAMES:
            yield node.func, source(node.func).removesuffix(name) + _NAMES[name]
    elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(
        node, ast.AugAssign
    ):
        yield node, "pass"


def sample_mutations(files: Sequence[Path], number: int, seed: int) -> list[Mutation]:
    """Samples mutations of files; the same for the same seed and code."""
    every = [
        mutation
        for path in files
        for mutation in mutations(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    return sorted(
        random.Random(seed).sample(every, min(number, len(every))),
        key=lambda each: (str(each.path), each.start),
    )


def source_files(only: Sequence[str]) -> list[Path]:
    """Returns the given source files, or all of them.

    Raises:
        ConfigError: If a given file is not a source file.
    """
    every = [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    for name in only:
        if Path(name) not in every:
            raise ConfigError(f"{name} is not a source file of {', '.join(PACKAGES)}.")
    return [Path(name) for name in only] or every


def find_tests(path: Path, root: Path) -> list[str]:
    """Returns the tests of a file: by name, or those that name its module, or its folder's."""
    package, name = path.parent, path.stem.lstrip("_")
    mirror = root / "tests" / package
    own = sorted(mirror.glob(f"test_{name}.py")) + sorted(mirror.glob(f"test_{name}_*.py"))
    if not own:
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        own = [
            test
            for test in sorted((root / "tests").rglob("test_*.py"))
            if module in test.read_text(encoding="utf-8")
        ]
    own = own or sorted(mirror.glob("test_*.py")) or sorted(mirror.parent.glob("test_*.py"))
    return [str(test.relative_to(root)) for test in own]


def passes(path: Path, mutation: Mutation | None, timeout: float) -> bool:
    """Returns whether a file's tests pass in a copy of the project, mutated or not."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in _COPIED:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns(*_NOT_COPIED)
                shutil.copytree(ROOT / name, copy / name, ignore=ignore)
            elif (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        if mutation is not None:
            file = copy / path
            file.write_bytes(mutation.apply(file.read_bytes()))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["-m", "not slow and not long and not gpu", *find_tests(path, copy)]
        try:
            done = subprocess.run(
                [*command, f"--basetemp={copy / 'tmp'}"],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False  # detected: an endless loop
        return done.returncode in (0, _NO_TESTS)


def try_all(
    sample: Sequence[Mutation], jobs: int, timeout: float
) -> Iterator[tuple[Mutation, str]]:
    """Tests mutations in parallel; yields each, in order, with its outcome.

    The outcome is `LIVES` if the tests pass, `dies` if they fail, and `unknown` if they also fail
    without the mutation.
    """
    paths = list(dict.fromkeys(mutation.path for mutation in sample))
    with ThreadPoolExecutor(jobs) as pool:
        plain = {path: pool.submit(passes, path, None, timeout) for path in paths}
        tried = [pool.submit(passes, each.path, each, timeout) for each in sample]
        for mutation, outcome in zip(sample, tried, strict=True):
            if not plain[mutation.path].result():
                yield mutation, "unknown"
            else:
                yield mutation, "LIVES" if outcome.result() else "dies"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = make_parser("mutants", __doc__)
    parser.add_argument("--count", type=count, default=20, help="mutations (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: 1)")
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="mutate only these")
    parser.add_argument("--jobs", type=count, help="parallel tests (default: one per core)")
    parser.add_argument(
        "--timeout", type=count, default=1800, help="seconds for a mutation's tests (default: 1800)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    with user_errors():
        sample = sample_mutations(source_files(options.only), options.count, options.seed)
        jobs = options.jobs or available_cores()
        found = {"LIVES": 0, "dies": 0, "unknown": 0}
        for number, (mutation, word) in enumerate(try_all(sample, jobs, options.timeout), 1):
            found[word] += 1
            console.print(f"{number}/{len(sample)} {word:<7} {mutation}", markup=False)
        console.print(f"{found['LIVES']} of {len(sample)} mutations live (seed {options.seed}).")
        if found["unknown"]:
            console.print(f"{found['unknown']} unknown: their tests fail without a mutation.")


if __name__ == "__main__":
    main()
