"""The daemon's processes: service, workers and their supervisor, signals, readiness."""
