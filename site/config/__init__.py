"""The Django project that runs ProgRock by itself; a host project brings its own."""
