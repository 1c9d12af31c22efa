"""`chatd user`, `chatd token` and other commands for administrators."""
