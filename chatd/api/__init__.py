"""The REST API: routes, their description, and the operators' listener."""
