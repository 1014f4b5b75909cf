"""The server: a page and an API that segment scans, and show studies while they are under way."""
