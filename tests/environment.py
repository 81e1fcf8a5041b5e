"""Settings of the tests' own process, set before Django reads them.

pytest loads this file by `-p`, see pyproject.toml.
"""

import os

# A test must not depend on what a developer has exported, nor reach a developer's services.
for name in list(os.environ):
    if name in ("AMQP_URL", "DATABASE_URL", "ALLOWED_HOSTS") or (
        name.startswith("PROGROCK_") and not name.startswith("PROGROCK_TEST_")
    ):
        del os.environ[name]
os.environ.update(
    DEBUG="1", SECRET_KEY="only-for-tests", AMQP_URL="amqp://guest:guest@127.0.0.1:1/"
)
