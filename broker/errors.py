"""What can go wrong with RabbitMQ, in the words of this package: drivers' errors never leave `broker/`."""


class BrokerError(Exception):
    """Base of everything this package raises on purpose."""


class BrokerUnavailable(BrokerError):
    """Raised when RabbitMQ cannot be reached, refuses us, or the connection was lost."""


class PublishFailed(BrokerError):
    """Raised when a message was returned, refused, lost with its connection, or not confirmed in time."""


class BrokenMessage(BrokerError):
    """Raised when a body is not a message of ours; its text is the reason that the dead queue gets."""
