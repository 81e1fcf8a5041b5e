"""The site that the pages of the frameworks belong to: ProgRock's own, and some URLs."""
