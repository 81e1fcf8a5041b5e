"""What reacts: to browsers (ProgressConsumer) and to poll tasks (Poller)."""
