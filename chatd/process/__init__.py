"""One process of the daemon, and the supervisor of several."""
