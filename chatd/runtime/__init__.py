"""Helpers on top of Twisted that know nothing of chat."""
