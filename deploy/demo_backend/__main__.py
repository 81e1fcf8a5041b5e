"""Serves the demo backend: `python -m deploy.demo_backend --port 8090`."""

import argparse
import os
from collections.abc import Sequence

import uvloop
from aiohttp import web

from deploy.demo_backend.app import application
from deploy.demo_backend.hooks import with_hooks


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo_backend", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--test", action="store_true", help="with hooks for tests under /_test/")
    options = parser.parse_args(arguments)
    try:
        web.run_app(
            with_hooks(application()) if options.test else application(),
            host=options.host,
            port=options.port,
            access_log=None,
            shutdown_timeout=1.0,
            handler_cancellation=options.test,  # it costs a task for each request
            loop=uvloop.new_event_loop(),
        )
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SystemExit(
            f"port {options.port} cannot be used ({reason}): choose another by --port"
        ) from error


if __name__ == "__main__":
    main()
