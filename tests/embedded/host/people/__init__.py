"""The host's users."""
