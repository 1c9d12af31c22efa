"""Whether a server keeps the promises of the protocol: `python -m chatd.conformance URL`.

It makes accounts with random names on the server and deletes them afterwards. Everything it
knows of the server it asks over HTTP, so it can judge any server that claims the contract.
"""
