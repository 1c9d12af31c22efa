"""Lint for the documents, and for text that no file may contain.

Fenced blocks of Python, JSON and TOML must parse, those of shell must pass ``bash -n``, and
relative links must have a target. No text file may contain a path that exists on one machine only,
the host of a package registry, or a reminder such as "to do". Prints one line per finding and exits
with 1 if there are any.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<language>[\w+-]*)[^\n]*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
SHELL = {"bash", "sh", "shell"}

FORBIDDEN = {
    # Character classes keep this file from containing them itself.
    "a path of one machine": re.compile(r"(?<![\w.$}~-])/(?:[w]ork|[r]oot|[t]mp/venv)(?![\w.-])"),
    "a home folder": re.compile(r"(?<![\w.$}~-])/(?:[h]ome|[U]sers)/[a-z]+"),
    "a registry's host": re.compile(r"\b(?:pypi\.[o]rg|pythonhosted\.[o]rg|npmjs\.[a-z]+)"),
    "a reminder": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X])\b"),
}


def files() -> list[Path]:
    """Files that are committed or could be; ignored ones are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in sorted(set(listed.stdout.split("\0"))) if name]
    return [path for path in paths if path.is_file()]


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Fenced blocks of a Markdown text: number of their first line, language, body."""
    opened: re.Match[str] | None = None
    start, body = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if opened is None:
            opened = FENCE.match(line)
            start, body = number + 1, []
        elif line.strip() == opened["fence"]:
            yield start, opened["language"].lower(), "\n".join(body) + "\n"
            opened = None
        else:
            body.append(line.removeprefix(opened["indent"]))
    if opened is not None:
        yield start, "unclosed", ""


def block_error(language: str, body: str) -> str | None:
    """The error in a block, or None."""
    try:
        match language:
            case "unclosed":
                return "a fenced block is not closed"
            case "python" | "py":
                compile(body, "block", "exec", dont_inherit=True)
            case "json":
                json.loads(body)
            case "toml":
                tomllib.loads(body)
            case _ if language in SHELL:
                done = subprocess.run(
                    ["bash", "-n"], input=body, capture_output=True, text=True, check=False
                )
                if done.returncode:
                    return done.stderr.strip().splitlines()[0]
    except (SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a Markdown text, spelled as GitHub does."""
    fenced = re.sub(r"(?ms)^ *(```+|~~~+).*?^ *\1 *$", "", text)
    headings = re.findall(r"(?m)^#{1,6} +(.+?) *#*$", fenced)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def document_errors(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Blocks that do not parse and links without a target."""
    for line, language, body in blocks(text):
        if error := block_error(language, body):
            yield line, error
    fenced = False
    for number, line_text in enumerate(text.splitlines(), 1):
        if FENCE.match(line_text):
            fenced = not fenced
        for link in () if fenced else LINK.finditer(line_text):
            target = link["target"] or link["image"]
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            if not file.exists():
                yield number, f"the link {target} has no target"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
                yield number, f"the link {target} names no heading of its target"


def text_errors(text: str) -> Iterator[tuple[int, str]]:
    """Text that no file may contain."""
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            if found := pattern.search(line):
                yield number, f"{what}: {found[0]}"


def main() -> int:
    """Check every file; returns the exit status."""
    count = 0
    for path in files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        errors = list(text_errors(text))
        if path.suffix == ".md":
            errors += document_errors(path, text)
        for line, error in sorted(errors):
            print(f"{path.relative_to(ROOT)}:{line}: {error}")
        count += len(errors)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
