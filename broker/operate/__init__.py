"""The operators' wing: only the commands of `manage.py` import it, never the core."""
