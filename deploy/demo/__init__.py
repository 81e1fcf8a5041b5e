"""`make demo`: runs all of ProgRock on this machine, a private RabbitMQ included."""
