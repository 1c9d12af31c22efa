"""An HTTP/1.1 server on Twisted (RFC 9110, RFC 9112), built for many connections that wait.

`server.Server` is the factory to listen with. Its resources are those of twisted.web, and the
requests they are given are `request.Request`, a `twisted.web.server.Request`.
"""
