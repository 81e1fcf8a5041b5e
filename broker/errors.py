"""Says what can go wrong with RabbitMQ. Drivers' errors are turned into these in `broker/`."""


class BrokerError(Exception):
    """Base of everything this package raises on purpose."""


class BrokerUnavailable(BrokerError):
    """Raised when RabbitMQ cannot be reached, refuses us, or the connection was lost."""


class PublishFailed(BrokerError):
    """Raised when a message was returned, refused, lost on the way, or not confirmed in time."""


class BrokenMessage(BrokerError):
    """Raised when a message cannot be read, or is not ours. Its text is the dead queue's reason."""


class NotOurs(BrokerError):
    """Raised when an operator would remove what may be another installation's."""
