"""What `manage.py backend` does: reads tables, tries one on its backend, lists the recipes."""
