"""A Django project of somebody's own, with ProgRock in it."""
