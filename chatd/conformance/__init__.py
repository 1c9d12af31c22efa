"""Conformance tests for servers of chatd's protocol: `python -m chatd.conformance URL`.

They create accounts with random names on the server and delete them afterwards. They use nothing
but HTTP, so they can test any implementation of the API.
"""
