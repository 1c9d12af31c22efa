"""`chatd doctor`, which holds polls for seconds instead of a minute."""

from __future__ import annotations

from chatd.cli import doctor
from chatd.cli.main import main

doctor.HOLDS = (1, 2)  # type: ignore[assignment, misc]

if __name__ == "__main__":
    main()
