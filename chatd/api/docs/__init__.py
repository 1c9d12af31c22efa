"""The description of the API, for programs (OpenAPI) and for people."""
