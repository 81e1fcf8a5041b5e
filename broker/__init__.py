"""Talks to RabbitMQ and to nothing else: only this package imports drivers for it."""
