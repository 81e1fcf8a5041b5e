"""What can go wrong with RabbitMQ. Drivers' errors never leave `broker/`: they become these."""


class BrokerError(Exception):
    """Base of everything this package raises on purpose."""


class BrokerUnavailable(BrokerError):
    """Raised when RabbitMQ cannot be reached, refuses us, or the connection was lost."""


class PublishFailed(BrokerError):
    """Raised when a message was returned, refused, lost on the way, or not confirmed in time."""


class BrokenMessage(BrokerError):
    """Raised when a body is not a message of ours. The dead queue gets its text as the reason."""


class NotOurs(BrokerError):
    """Raised when what was to be removed may be another installation's."""
