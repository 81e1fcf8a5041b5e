"""The Django app of what reacts: to browsers (ProgressConsumer), to poll tasks (Poller), to operators (the commands)."""
