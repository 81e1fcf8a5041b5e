"""The host's own app called jobs."""
