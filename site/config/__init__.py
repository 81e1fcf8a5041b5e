"""The Django project that runs ProgRock by itself. In a project of your own this is not used."""
