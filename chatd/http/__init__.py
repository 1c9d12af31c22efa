"""The HTTP side: the channel, the routes of the API, its wire format, and the admin listener."""
