"""Reads the address of RabbitMQ. This is the one place that takes `AMQP_URL` apart."""

import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from progrock.broker.errors import BrokerUnavailable

#: The address that stands for no RabbitMQ at all, in tests.
MEMORY = "memory://"
FORM = "amqp://user:password@host:port/vhost, or amqps://"


class Address(NamedTuple):
    """Where RabbitMQ is, decoded. `options` are those of the URL's query, for TLS and drivers."""

    tls: bool
    host: str
    port: int
    user: str
    password: str
    vhost: str
    options: Mapping[str, str]

    @property
    def place(self) -> str:
        """`host:port`, which may be shown: it has no credentials."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address with everything in it encoded, without the query."""
        scheme, vhost = "amqps" if self.tls else "amqp", quote(self.vhost, safe="")
        return f"{scheme}://{self.login}@{self.place}/{vhost}"

    @property
    def login(self) -> str:
        """`user:password`, encoded for a URL."""
        return f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"


def read(url: str) -> Address:
    """Take an AMQP URL apart. Raises BrokerUnavailable, which shows no part of the password."""
    parts = _split("the address of RabbitMQ", url, FORM)
    if parts.scheme not in ("amqp", "amqps"):
        raise _wrong("the address of RabbitMQ", f"it begins with {parts.scheme or '?'}:", FORM)
    path = parts.path.removeprefix("/")
    if "/" in path and path != "/":
        raise _wrong("the address of RabbitMQ", "in a virtual host's name write %2F for /", FORM)
    tls = parts.scheme == "amqps"
    return Address(
        tls=tls,
        host=parts.hostname or "localhost",
        port=parts.port or (5671 if tls else 5672),
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(path) or "/",
        options={key: values[0] for key, values in parse_qs(parts.query).items()},
    )


def place(url: str) -> str:
    """`host:port` of an AMQP URL, which may be shown. Raises BrokerUnavailable if it is none."""
    return read(url).place


def vhost_of(url: str) -> str:
    """The virtual host that an AMQP URL names; `/` when it names none."""
    return read(url).vhost


def tls_of(url: str) -> ssl.SSLContext | None:
    """The TLS context of an `amqps://` URL; None for `amqp://`.

    For drivers that do not read the URL's query as aio-pika does. Its keys are those of aiormq:
    cafile, capath, certfile, keyfile, no_verify_ssl. Raises OSError for a file that is not there.
    """
    address = read(url)
    if not address.tls:
        return None
    query = address.options
    context = ssl.create_default_context(cafile=query.get("cafile"), capath=query.get("capath"))
    if certificate := query.get("certfile"):
        context.load_cert_chain(certificate, query.get("keyfile"))
    if query.get("no_verify_ssl", "0") != "0":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def management_of(url: str) -> str:
    """The URL of the management API of the RabbitMQ at an AMQP URL.

    It has the same host and login, and port 15672, or 15671 with TLS.
    """
    address = read(url)
    scheme, port = ("https", 15671) if address.tls else ("http", 15672)
    return f"{scheme}://{address.login}@{address._replace(port=port).place}"


class Management(NamedTuple):
    """The management API: its URL without credentials, its login, and what errors call it."""

    url: str
    login: tuple[str, str] | None
    name: str


def read_management(url: str) -> Management:
    """Take the URL of a management API apart. Raises BrokerUnavailable."""
    what, form = "the address of RabbitMQ's management API", "https://user:password@host:port"
    parts = _split(what, url, form)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(what, f"it begins with {parts.scheme or '?'}:", form)
    _, _, netloc = parts.netloc.rpartition("@")
    login = None
    if parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
    bare = parts._replace(netloc=netloc, query="", fragment="").geturl().rstrip("/")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = f"RabbitMQ's management API at {host}:{parts.port or parts.scheme}"
    return Management(bare, login, where)


def _split(what: str, url: str, form: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        fine = parts.port != 0 and not parts.fragment
    except ValueError:  # a port that is no number, half of the brackets of an IPv6 address
        fine = False
    if not fine:
        hint = (
            "the port is a number, an IPv6 address stands in [ ], and in a password"
            " write %23 for #, %2F for / and %3F for ?"
        )
        raise _wrong(what, hint, form)
    return parts


def _wrong(what: str, why: str, form: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"{what} is wrong: wanted {form} ({why})")
