"""Where a request may go: no value leads to another server, and none climbs in a path."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from progrock.backends import ConfigError
from progrock.backends.http.addresses import Address, Servers
from progrock.backends.templates import Scope, Unfillable, text
from tests.language import SECRET, built, job, options, scope, spec

ROOTS = ("job", "handle", "params", "answer", "header")
HERE = "https://render.internal/v1"
OTHERS = ("https://files.example", "https://files.example:8443", "http://plain.example")


def address(path: str, scope: Scope, url: str = HERE, others: tuple[str, ...] = OTHERS) -> Address:
    return Servers(url, others).address(text("path", path, ROOTS, path=True), scope)


def at(path: str, handle: str, url: str = HERE) -> str:
    return address(path, scope(handle), url).url


# What stands in a path


@pytest.mark.parametrize(
    ("path", "handle", "asked"),
    [
        ("/tasks/{handle}", "a b", "/tasks/a%20b"),
        ("/tasks/{handle}", "a/b?c#d", "/tasks/a%2Fb%3Fc%23d"),
        ("/tasks/{handle}", "%2F", "/tasks/%252F"),
        ("/tasks/{handle}", "é", "/tasks/%C3%A9"),
        ("/tasks/{handle}", "a,b;c=d&e+f", "/tasks/a%2Cb%3Bc%3Dd%26e%2Bf"),
        ("/tasks/{handle}", "https://evil.example", "/tasks/https%3A%2F%2Fevil.example"),
        ("/tasks/{handle}", "//evil.example", "/tasks/%2F%2Fevil.example"),
        ("/tasks?id={handle}", "a&admin=1", "/tasks?id=a%26admin%3D1"),
        ("/tasks/{+handle}", "p/locations/l/jobs/1", "/tasks/p/locations/l/jobs/1"),
        ("/tasks/{+handle}", "a%2Fb", "/tasks/a%2Fb"),
        ("/tasks/{+handle}", "50%", "/tasks/50%25"),
        ("/tasks/{+handle}", "a?b#c", "/tasks/a%3Fb%23c"),
        ("/tasks/{+handle}", "a\\b", "/tasks/a%5Cb"),
        ("/tasks/{handle}.json", "a..b", "/tasks/a..b.json"),
        ("/tasks/{handle}", ".hidden", "/tasks/.hidden"),
        ("/tasks/{handle}", "...", "/tasks/..."),
    ],
)
def test_a_value_is_percent_encoded_whole_and_plus_keeps_slashes(
    path: str, handle: str, asked: str
) -> None:
    assert at(path, handle) == HERE + asked


CLIMBS = [
    *(".", "..", "%2e", "%2E%2e", "%252e%252e", "%25252e.", ".%2e", "..;", "..;a=b", "..%3b"),
    *("a/..", "a/../b", "../a", "./a", "a/.", "a\\..\\b", "..\\", "a%2f..%2fb", "a%5c..%5cb"),
    *("a%252f..", "..%2F", "..%00", "..%20", "..%23", "..%3f", "..%09", ".%0a."),
]


@pytest.mark.parametrize("handle", CLIMBS)
@pytest.mark.parametrize(
    "path", ["/tasks/{handle}", "/tasks/{+handle}", "{+handle}", "/tasks/{handle}/cancel?a=b"]
)
def test_a_value_that_climbs_is_refused(path: str, handle: str) -> None:
    with pytest.raises(Unfillable, match=r"handle climbs in the path by \. or \.\."):
        at(path, handle)


@pytest.mark.parametrize("path", ["/tasks/.{handle}", "/tasks/{handle}{job}", "/t/{handle}./x"])
def test_a_value_that_makes_dots_with_its_neighbours_is_refused(path: str) -> None:
    with pytest.raises(Unfillable, match="climbs"):
        address(path, Scope(job(".", id=".")))


@pytest.mark.parametrize("path", ["/tasks/{handle}", "/tasks/{+handle}", "{+handle}"])
def test_an_empty_value_is_refused_because_the_path_would_mean_something_else(path: str) -> None:
    with pytest.raises(Unfillable, match="handle is empty"):
        at(path, "")


def test_a_dot_in_the_query_climbs_nowhere() -> None:
    assert at("/tasks?id={handle}", "..") == f"{HERE}/tasks?id=.."


def test_dots_that_the_file_itself_has_are_the_operators_own() -> None:
    assert address("/a/../b", Scope()).url == f"{HERE}/a/../b"


# Handles that are addresses


@pytest.mark.parametrize(
    ("handle", "asked"),
    [
        ("https://render.internal/v1/jobs/5", "https://render.internal/v1/jobs/5"),
        ("https://render.internal:443/jobs/5", "https://render.internal:443/jobs/5"),
        ("HTTPS://RENDER.internal/jobs/5", "https://RENDER.internal/jobs/5"),
        ("/jobs/5", "https://render.internal/jobs/5"),
        ("jobs/5", "https://render.internal/jobs/5"),
        ("//render.internal/jobs/5", "https://render.internal/jobs/5"),
        ("/jobs/5?api-version=2", "https://render.internal/jobs/5?api-version=2"),
        ("?job=5", "https://render.internal/v1?job=5"),
        (" /jobs/5 ", "https://render.internal/jobs/5"),
        ("/jobs/a b", "https://render.internal/jobs/a%20b"),
        ("/jobs/%C3%A9", "https://render.internal/jobs/%C3%A9"),
        ("/jobs(1)/$value", "https://render.internal/jobs(1)/$value"),
    ],
)
def test_a_handle_may_be_an_address_absolute_or_relative(handle: str, asked: str) -> None:
    assert at("{+handle}", handle) == asked


def test_a_relative_handle_is_resolved_as_rfc_3986_says() -> None:
    assert at("{+handle}", "jobs/5", f"{HERE}/") == f"{HERE}/jobs/5"
    assert at("{+handle}", "jobs/5", HERE) == "https://render.internal/jobs/5"
    assert at("{+handle}", "jobs/5", "https://render.internal") == "https://render.internal/jobs/5"


def test_a_text_may_follow_the_address() -> None:
    assert at("{+handle}/status", "/jobs/5") == "https://render.internal/jobs/5/status"
    assert at("{+handle}?full=1", "/jobs/5") == "https://render.internal/jobs/5?full=1"
    assert at("{+handle}&full=1", "/jobs/5?a=b") == "https://render.internal/jobs/5?a=b&full=1"


@pytest.mark.parametrize(
    "handle",
    [
        "//evil.example/x",
        "https://evil.example/x",
        "https://render.internal.evil.example/x",
        "https://render.internal./x",
        "https://render.internal:8443/x",
        "https://render.internal:80/x",
        "https://render.internal:0443x/",
        "https://render.internal:99999/x",
        "http://render.internal/x",
        "http://render.internal:443/x",
        "http:/x",
        "http:x",
        "http://plain.example/x",  # it is in `origins`, but not by https
        "ftp://render.internal/x",
        "x:y@evil.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
        "https://user:password@render.internal/x",
        "https://user@render.internal/x",
        "https://@render.internal/x",
        "https://render.internal@evil.example/x",
        "https://render.internal%40evil.example/x",
        "https://render.internal%2eevil.example/x",
        "https://render.internal\\@evil.example/x",
        "https://evil.example#@render.internal/",
        "https://evil.example?@render.internal/",
        "https://[::1]/x",
        "https://[::1%25lo]/x",
        "https://[render.internal]/x",
        "https://127.0.0.1/x",
        "https://rénder.internal/x",
        "https://xn--rnder-bsa.internal/x",
        "https://render。internal/x",
        "https://\uff52ender.internal/x",
        "https://render.internal\tx.example/",
        "https://files.example:9000/x",
        "https://sub.files.example/x",
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(handle: str) -> None:
    with pytest.raises(Unfillable, match=r"^handle is an address that may not be asked") as raised:
        address("{+handle}", scope(handle))
    assert not raised.value.sent
    assert "evil" not in raised.value.sentence


@pytest.mark.parametrize(
    "handle",
    [
        "///evil.example/x@evil.example",
        "https:/evil.example",
        "https:evil.example",
        "https://render.internal:/x@evil.example:443/",
        "\\\\evil.example\\x",
        "https:\\\\evil.example/x",
        "https:///x",
        "https://",
        "h\nttps://evil.example/x",
    ],
)
def test_what_only_looks_like_another_server_is_a_path_on_the_own_one(handle: str) -> None:
    found = address("{+handle}", scope(handle))
    url = URL(found.url, encoded=True)
    assert (found.own, url.scheme, url.host, url.port) == (True, "https", "render.internal", 443)


@pytest.mark.parametrize("handle", ["/x#y", "/x#", "#", "/a#b?c", "https://render.internal/#x"])
def test_an_address_with_a_fragment_is_refused(handle: str) -> None:
    with pytest.raises(Unfillable, match="# in the middle"):
        at("{+handle}", handle)


@pytest.mark.parametrize("path", ["{+handle}/status", "{+handle}?full=1"])
def test_a_question_mark_does_not_get_into_the_middle(path: str) -> None:
    with pytest.raises(Unfillable, match="in the middle"):
        at(path, "/jobs/5?a=b")


def test_what_follows_an_address_cannot_change_its_server() -> None:
    for handle, rest in {"https://render.internal": ".evil.example", "https://render": ""}.items():
        with pytest.raises(Unfillable):
            address("{+handle}{params.x}", scope(handle, {"x": rest or ".internal.evil"}))
    with pytest.raises(Unfillable):
        address("{+handle}{params.x}", scope("https://render.internal:4", {"x": "430"}))
    with pytest.raises(Unfillable):
        address("{+handle}{params.x}", scope("https://render.internal", {"x": "@evil.example/"}))


def test_addresses_of_the_listed_origins_may_be_asked_and_are_not_the_own_server() -> None:
    asked = address("{+handle}", scope("https://files.example/x?sig=1"))
    assert asked == Address("https://files.example/x?sig=1", own=False)
    assert not address("{+handle}", scope("https://files.example:8443/x")).own
    assert address("{+handle}", scope("/x")).own


def test_an_https_url_never_leads_to_http_and_an_http_url_may_lead_to_both() -> None:
    with pytest.raises(Unfillable, match="origins"):
        at("{+handle}", "http://plain.example/x")
    for handle in ("http://plain.example/x", "https://files.example/x"):
        assert at("{+handle}", handle, "http://render.internal") == handle


@pytest.mark.parametrize("hole", ["{+answer.url}", "{+header.location}", "{+handle}"])
def test_every_hole_with_a_plus_is_under_the_same_rules(hole: str) -> None:
    def where(value: str) -> Scope:
        return scope(value, answer={"url": value}, headers={"location": value})

    assert address(hole, where("/x")).url == "https://render.internal/x"
    for value in ("//evil.example/x", "/../x", "https://u:p@render.internal/"):
        with pytest.raises(Unfillable):
            address(hole, where(value))


def test_an_address_that_is_no_text_leads_nowhere() -> None:
    for value in (None, [], {"a": 1}, ["//evil.example"], {"//evil.example/": 1}):
        try:
            found = address("{+answer.url}", scope(answer={"url": value}))
        except Unfillable:
            continue
        assert found.own


PIECES = [
    *("..", ".", "%2e", "%252e", "%2E%2E", "/", "//", "///", "\\", "@", ":", "?", "#", ";", "%"),
    *("https://", "http://", "http:", "https:", "HTTPS://", "ftp://", "evil.example", ":80"),
    *("render.internal", "RENDER.INTERNAL", "files.example", ":8443", ":443", "[::1]", "[", "]"),
    *("\t", "\n", "\r", "\0", " ", "é", "%2f", "%5c", "%0d%0a", "a", "v1", "&", "=", ",", "+"),
    *("\u2025", "\uff0e", "\u3002", "\u2100", "\ud800", "user:pass@", "%", "%zz", "%ff", "~"),
]
values = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=20)
PATHS = [
    *("{+handle}", "{+handle}/status", "{+handle}?a=b", "{+handle}{params.x}", "{+answer.url}/x"),
    *("/tasks/{handle}", "/tasks/{+handle}", "/tasks/{handle}/x", "/x?u={+handle}", "/{params.x}"),
    *("/{params.x}{handle}", "/a.{handle}.b", "/x?u={handle}&v={params.x}", "{+header.location}"),
]
CLIMBING = re.compile(r"\s*\.{1,2}\s*([;?#\0].*)?", re.DOTALL)


@settings(max_examples=500)
@given(st.sampled_from(PATHS), values, values)
@example("{+handle}", "\ud800", "")
@example("/tasks/{handle}", "\ud800", "")
@example("{+handle}", "///evil.example", "")
@example("{+handle}", "https:render.internal", "")
def test_no_value_leads_to_another_server_or_climbs(path: str, one: str, other: str) -> None:
    where = scope(one, {"x": other}, answer={"url": one}, headers={"location": other})
    try:
        found = address(path, where)
    except Unfillable:
        return
    assert re.fullmatch(r"[!-~]+", found.url)
    url = URL(found.url, encoded=True)  # as the client reads it
    assert (url.user, url.password, url.fragment) == (None, None, "")
    assert "#" not in found.url
    own = url.scheme == "https" and url.host == "render.internal" and url.port == 443
    assert found.own is own
    assert own or (url.scheme, url.host, url.port) in {
        ("https", "files.example", 443),
        ("https", "files.example", 8443),
    }
    assert url.raw_path_qs.startswith("/")
    if not path.startswith("{+"):
        assert found.url.startswith(HERE + "/")
    plain = url.raw_path
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    assert not any(CLIMBING.fullmatch(part) for part in re.split(r"[/\\]", plain))


# What the file may say


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("tasks/{handle}", "must begin with /"),
        ("{handle}", "must begin with /"),
        ("{handle}/x", "must begin with /"),
        ("${PREFIX}/{handle}", "must begin with /"),
        ("", "must begin with /"),
        ("/tasks/{handle}#x", "#"),
        ("/tasks/{handle} x", "a character that no path may hold"),
        ("/tasks/{handle}\\\\x", "a character that no path may hold"),
        ("/tasks/{handle}\\u00e9", "a character that no path may hold"),
        ("/tasks/{ handle }", "a character that no path may hold"),
        ("/tasks/{+params.x}", "a browser chooses the params"),
        ("{+params.url}", "a browser chooses the params"),
        ("/tasks/{+params}", "a browser chooses the params"),
        ("/tasks/{handle}/{answer.x}", "in this place"),
        ("/tasks/{handle}/{header.location}", "in this place"),
        ("/tasks/{handels}", "{handle}"),
    ],
)
def test_a_wrong_path_is_told_when_the_file_is_read(path: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options(poll=f'{{ path = "{path}" }}')
    assert "[render] poll path" in raised.value.where
    assert told in raised.value.wanted or told in raised.value.found


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x", "//x", "x", "https://", "https://u:p@x", "https://u@x", "https://x:0"),
        *("https://x:99999", "https://x/?a", "https://x/#a", "https://x/a b", "https://é", ""),
        *("https://x\\\\y", "https://x/{handle}"),
    ],
)
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] url"):
        options(url=f'"{url}"')


@pytest.mark.parametrize("url", [SECRET, f"https://u:{SECRET}@x", f"https://x?{SECRET}"])
def test_a_wrong_url_out_of_the_environment_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] url") as raised:
        built({"URL": url}, url='"${URL}"')
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("origins", ['"https://x"', '["x"]', '["https://u:p@x"]', "[7]", '["*"]'])
def test_wrong_origins_are_told(origins: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] origins"):
        options(origins=origins)


def test_a_variable_in_a_path_is_put_in_as_it_is_where_it_fits() -> None:
    poll = '{ path = "/${VERSION:-v2}/tasks/{handle}" }'
    for environ, version in {"": "v2", "a/b": "a/b"}.items():
        path = spec({"VERSION": environ}, poll=poll).poll
        assert path is not None
        assert Servers(HERE).address(path.path, scope()).url == f"{HERE}/{version}/tasks/h1"


@pytest.mark.parametrize("value", [f"{SECRET} x", f"{SECRET}\r\nX: y", f"{SECRET}é", f"#{SECRET}"])
def test_a_variable_that_no_path_may_hold_stops_the_start(value: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] poll path") as raised:
        built({"PART": value}, poll='{ path = "/${PART}/{handle}" }')
    assert SECRET not in str(raised.value)
