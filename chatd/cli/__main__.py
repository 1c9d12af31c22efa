"""`python -m chatd.cli` is the `chatd` command, where that is not on the path."""

from chatd.cli.main import main

main()
