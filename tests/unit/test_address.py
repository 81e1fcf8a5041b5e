"""The address of RabbitMQ is read in one place, and what is wrong with it is told in a sentence."""

import pytest
from django.core.checks import Error
from django.test import override_settings

from progrock import conf
from progrock.broker.address import Address, management_of, read, read_management
from progrock.broker.errors import BrokerUnavailable
from progrock.checks import check_addresses


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://", Address(False, "localhost", 5672, "guest", "guest", "/", {})),
        ("amqp://a:b@h/", Address(False, "h", 5672, "a", "b", "/", {})),
        ("amqp://a:b@h//", Address(False, "h", 5672, "a", "b", "/", {})),
        ("amqp://a:b@h:1/%2F", Address(False, "h", 1, "a", "b", "/", {})),
        ("amqp://a:b@h/one%2Ftwo", Address(False, "h", 5672, "a", "b", "one/two", {})),
        ("amqp://a:b@[::1]:7/v", Address(False, "::1", 7, "a", "b", "v", {})),
        ("amqp://é:пароль%23@h/v", Address(False, "h", 5672, "é", "пароль#", "v", {})),
        (
            "amqps://a:b@h/v?cafile=/ca.pem",
            Address(True, "h", 5671, "a", "b", "v", {"cafile": "/ca.pem"}),
        ),
    ],
)
def test_an_address_is_decoded(url: str, wanted: Address) -> None:
    assert read(url) == wanted
    assert read(wanted.url) == wanted._replace(options={}), "and written it is the same"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", r"begins with \?"),
        ("rabbitmq.internal:5672", "begins with rabbitmq.internal:"),
        ("http://a:secret@h/", "begins with http:"),
        ("amqp://a:secret@h/one/two", "write %2F for /"),
        ("amqp://a:secret@h:port/", "the port is a number"),
        ("amqp://a:secret@h:99999/", "the port is a number"),
        ("amqp://a:secret@[::1/", r"IPv6 address stands in \[ \]"),
        ("amqp://a:secret@::1]/", r"IPv6 address stands in \[ \]"),
        ("amqp://a:1#secret@h/", "write %23 for #"),
        ("amqp://a:1/secret@h/", "%2F for /"),
    ],
)
def test_a_wrong_address_is_told_without_its_password(url: str, hint: str) -> None:
    with pytest.raises(BrokerUnavailable, match=f"the address of RabbitMQ is wrong.*{hint}") as no:
        read(url)
    assert "secret" not in str(no.value)
    with override_settings(AMQP_URL=url):
        [found] = check_addresses()
        assert isinstance(found, Error)
        assert "AMQP_URL" in found.msg
        assert "secret" not in found.msg


def test_the_management_api_is_beside_it_by_its_host_and_its_login() -> None:
    url = management_of("amqp://é:пароль%23@[::1]:5672/v")
    assert url == "http://%C3%A9:%D0%BF%D0%B0%D1%80%D0%BE%D0%BB%D1%8C%23@[::1]:15672"
    found = read_management(url)
    assert found.url == "http://[::1]:15672"
    assert found.login == ("é", "пароль#")
    assert found.name == "RabbitMQ's management API at [::1]:15672"
    assert management_of("amqps://a:b@h/") == "https://a:b@h:15671"


@pytest.mark.parametrize("url", ["rabbit:15672", "amqp://h", "http://[::1", "http://h:x", "http:"])
def test_a_wrong_address_of_the_management_api_is_told(url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="management API is wrong"):
        read_management(url)
    with override_settings(PROGROCK_MANAGEMENT_URL=url):
        [found] = check_addresses()
    assert "PROGROCK_MANAGEMENT_URL" in found.msg


def test_a_file_for_tls_that_is_not_there_is_told_by_the_check() -> None:
    with override_settings(AMQP_URL="amqps://h/?cafile=/nowhere.pem"):
        [found] = check_addresses()
    assert "No such file" in found.msg


def test_the_addresses_of_the_tests_are_right() -> None:
    assert check_addresses() == []
    assert conf.management_url().startswith("http://guest:guest@127.0.0.1:")
