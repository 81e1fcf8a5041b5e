"""Template tags for pages that show jobs."""
