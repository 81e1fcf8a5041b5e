"""The host's own package of this name, which ProgRock must not disturb."""
