"""`python -m chatd.cli`: the `chatd` command where it is not on the path."""

from chatd.cli.main import main

main()
