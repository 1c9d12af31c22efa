"""Core NATS for Twisted: addresses, the protocol, and connections to one of several servers."""
