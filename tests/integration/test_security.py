"""Which browsers may do what, as SECURITY.md promises: origins, sessions, audiences, limits, pages.

What each process may do is in test_rights.py.
"""

import asyncio
import json
import re
import secrets
import socket
import time
import uuid
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from tests.people import PEOPLE, client, closed, cookie, get, person, post, sign_in
from tests.services import PATIENCE, Stack
from tests.visitor import browse


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack with users, and open to anonymous visitors."""
    with stack(workers=1, env={"PROGROCK_MAX_SOCKETS": "3"}) as up:
        up.shell(PEOPLE)
        yield up


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "file://",
        "127.0.0.1",
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://evil.example#127.0.0.1",
        "http://evil.example:99999999",
        "http://[::1",
    ],
)
async def test_pages_of_other_sites_get_no_socket(running: Stack, origin: str) -> None:
    before = len(running.logs("web"))
    async with client() as session:
        await get(running, session, "/")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with browse(running, session, Origin=origin):
                pass
    assert refused.value.status == 403
    assert "Traceback" not in running.logs("web")[before:]


@pytest.mark.parametrize("origin", ["{url}", "https://localhost", "HTTP://LOCALHOST:1234", None])
async def test_own_pages_and_programs_get_a_socket(running: Stack, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin.format(url=running.url)}
    async with browse(running, **headers) as visitor:
        await visitor.snapshot()


async def test_a_form_of_another_site_is_refused(running: Stack) -> None:
    async with client() as session:
        await get(running, session, "/login/")
        data = {
            "csrfmiddlewaretoken": cookie(session, "csrftoken") or "",
            "username": "alice",
            "password": "alice",
        }
        headers = {"Origin": "https://evil.example"}
        async with session.post(f"{running.url}/login/", data=data, headers=headers) as answer:
            assert answer.status == 403
    async with person(running, "alice") as session:
        assert (await get(running, session, "/logout/"))[0] == 405, "a link must log nobody out"


# Sessions


async def test_only_the_server_makes_sessions(running: Stack) -> None:
    async with client() as session:
        session.cookie_jar.update_cookies({"sessionid": "a" * 32}, aiohttp.client.URL(running.url))
        async with browse(running, session) as visitor:
            await visitor.snapshot()
        assert cookie(session) not in (None, "a" * 32)


async def test_a_login_changes_the_session_and_a_logout_ends_it_everywhere(running: Stack) -> None:
    async with client() as session:
        async with browse(running, session) as visitor:
            job = (await visitor.start(seconds=1))["job"]
        before = cookie(session)
        await sign_in(running, session, "alice")
        during = cookie(session)
        assert during not in (None, before)
        async with (
            browse(running, session) as one,
            browse(running, session) as two,
            person(running, "alice") as phone,
            browse(running, phone) as other,
        ):
            first = await one.snapshot()
            shown = {each["job"] for each in first["jobs"]}
            assert job in shown, "what this browser started stays in view"
            async with await post(running, session, "/logout/") as answer:
                assert answer.status == 302
            assert (await closed(one), await closed(two)) == (4402, 4402)
            await other.start(seconds=1)  # Another session of the same user goes on.
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        for old in (before, during):
            async with client() as thief:
                stolen = {"sessionid": old or ""}
                thief.cookie_jar.update_cookies(stolen, aiohttp.client.URL(running.url))
                assert (await get(running, thief, f"/jobs/{job}"))[0] == 404
                async with browse(running, thief) as visitor:
                    assert (await visitor.snapshot())["jobs"] == []


async def test_a_page_from_before_the_login_closes_at_the_logout(running: Stack) -> None:
    async with client() as session, browse(running, session) as page:
        job = (await page.start(seconds=1))["job"]
        await sign_in(running, session, "alice")
        await page.send({"action": "cancel", "job": job})  # the same browser may still do that
        await page.until(lambda frame: frame.get("job") == job and frame["complete"])
        async with await post(running, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(page) == 4402


async def test_signing_in_over_a_session_closes_the_sockets_of_the_other_user(
    running: Stack,
) -> None:
    async with (
        person(running, "alice") as session,
        browse(running, session) as hers,
        person(running, "alice") as phone,
        browse(running, phone) as elsewhere,
    ):
        await hers.snapshot()
        await elsewhere.snapshot()
        await sign_in(running, session, "bob")
        assert await closed(hers) == 4402
        async with browse(running, session) as his:
            await his.snapshot()
            await sign_in(running, session, "bob")  # once more: his session goes on
            await his.start(seconds=1)
        await elsewhere.start(seconds=1)


async def test_a_session_whose_key_changed_closes_at_the_logout(running: Stack) -> None:
    imports = "from django.contrib.auth.models import User"
    running.shell(f"{imports}; User.objects.create_superuser('changer', password='changer')")
    async with person(running, "changer") as session, browse(running, session) as page:
        await page.snapshot()
        before = cookie(session)
        await get(running, session, "/admin/password_change/")
        new = {
            "old_password": "changer",
            "new_password1": "ProgRock-1",
            "new_password2": "ProgRock-1",
        }
        async with await post(running, session, "/admin/password_change/", **new) as answer:
            assert answer.status == 302
        assert cookie(session) != before
        async with await post(running, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(page) == 4402


async def test_a_user_who_was_deactivated_sees_nothing_any_more(running: Stack) -> None:
    imports = "from django.contrib.auth.models import User"
    running.shell(f"{imports}; User.objects.create_user('leaver', password='leaver')")
    async with person(running, "leaver") as session:
        async with browse(running, session) as visitor:
            job = (await visitor.start(seconds=1))["job"]
        assert (await get(running, session, f"/jobs/{job}"))[0] == 200
        leaver = "User.objects.filter(username='leaver')"
        running.shell(f"{imports}; {leaver}.update(is_active=False)")
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        async with browse(running, session) as visitor:
            assert job not in {each["job"] for each in (await visitor.snapshot())["jobs"]}


# Audiences


async def test_nobody_sees_or_cancels_the_job_of_another_audience(running: Stack) -> None:
    async with person(running, "alice") as alice, browse(running, alice) as owner:
        request = str(uuid.uuid4())
        await owner.send({"action": "start", "params": {"seconds": 600}, "request": request})
        job = (await owner.until(lambda f: f.get("request") == request))["job"]
        await owner.until(lambda f: f.get("job") == job and f["state"] == "running")
        for name in ("bob", "clerk", "reader", None):
            async with (
                person(running, name) if name else client() as session,
                browse(running, session) as other,
            ):
                first = await other.snapshot()
                assert job not in {each["job"] for each in first["jobs"]}
                for spelling in (job, job.upper(), f"{{{job}}}", job.replace("-", "")):
                    await other.send({"action": "cancel", "job": spelling})
                    error = await other.error()
                    assert error["code"] == "unknown_job"
                await other.send({"action": "cancel", "job": str(uuid.uuid4())})
                assert (await other.error())["message"] == error["message"], (
                    "the answer must not tell that the job exists"
                )
                status, text = await get(running, session, f"/jobs/{job}")
                assert (status, json.loads(text)["code"]) == (404, "unknown_job")
                await other.send({"action": "start", "params": {"seconds": 1}, "request": request})
                own = await other.until(lambda f: f.get("request") == request)
                assert own["job"] != job, "another client's request of the same name is not ours"
                await other.ended(own["job"])
                assert job not in {f.get("job") for f in other.frames}
        assert (await get(running, alice, f"/jobs/{job}"))[0] == 200
        async with alice.post(f"{running.url}/jobs/{job}") as answer:
            assert answer.status in (403, 405)
        await owner.send({"action": "cancel", "job": job})
        assert (await owner.ended(job))["state"] == "cancelled"


async def test_the_admin_needs_the_permission(running: Stack) -> None:
    async with person(running, "alice") as alice, browse(running, alice) as owner:
        job = (await owner.start(seconds=600))["job"]
        await owner.until(lambda f: f.get("job") == job and f["state"] == "running")
        cancel = {"action": "cancel_jobs", "_selected_action": job}
        listing = "/admin/progrock/job/"
        assert (await get(running, alice, listing))[0] == 302, "she is sent to the admin's login"
        for name, status in (("clerk", 403), ("reader", 200), ("operator", 200)):
            async with person(running, name) as session:
                found, text = await get(running, session, listing)
                assert found == status, name
                assert (job[:8] in text) == (status == 200)
                assert ("Cancel the selected jobs" in text) == (name == "operator")
                async with await post(running, session, listing, **cancel) as answer:
                    assert answer.status in ((200, 302) if status == 200 else (403,))
                for path in (f"{listing}{job}/delete/", f"{listing}add/"):
                    assert (await get(running, session, path))[0] in (302, 403), path
            if name != "operator":
                _, text = await get(running, alice, f"/jobs/{job}")
                assert json.loads(text)["cancelling"] is False, name
        assert (await owner.ended(job))["state"] == "cancelled"


# Limits


async def lets_in(up: Stack, session: aiohttp.ClientSession) -> None:
    """Come until a socket gets a snapshot: the server may not know yet that others have gone."""
    async with asyncio.timeout(PATIENCE), browse(up, session) as visitor:
        while (await visitor.until(lambda f: f["type"] != "status"))["type"] != "snapshot":
            await visitor.socket.close()
            visitor.socket = await session.ws_connect(up.ws_url)


async def test_a_session_has_a_limit_of_sockets(running: Stack) -> None:
    async with person(running, "bob") as session:
        async with browse(running, session), browse(running, session), browse(running, session):
            async with browse(running, session) as fourth:
                assert (await fourth.error())["code"] == "too_many_sockets"
                assert await closed(fourth) == 1013
            async with browse(running) as other:
                await other.snapshot()
        await lets_in(running, session)


async def test_sockets_that_broke_off_do_not_count(running: Stack) -> None:
    async with client() as session:
        await get(running, session, "/")
        for _ in range(6):
            async with browse(running, session) as visitor:
                await visitor.snapshot()
                for _ in range(5):  # When these are answered, the browser has gone.
                    await visitor.send("no JSON")
                visitor.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            await lets_in(running, session)


async def test_a_flood_of_messages_is_read_slowly_and_delays_nobody_else(running: Stack) -> None:
    async with browse(running) as flooding, browse(running) as other:
        begun = time.monotonic()
        for n in range(480):
            await flooding.send({"action": "cancel", "job": str(n)})
        reading = asyncio.create_task(
            flooding.until(lambda f: len(flooding.frames) == 481, 2 * PATIENCE)
        )
        await other.start(seconds=1)
        assert not reading.done(), "the other must be served while the flood is still being read"
        await reading
        assert time.monotonic() - begun > 7.4, "it reads a hundred at once, then fifty a second"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        '"start"',
        "[" * 60_000,
        '{"a":' * 10_000,
        '{"action": "start", "params": {"x": 1e999}}',
        '{"action": "start", "params": {"x": "\\ud800"}}',
        '{"action": "start", "params": {"x": "\\u0000"}}',
        '{"action": "start", "request": ""}',
        '{"action": "start", "request": "a\\u0000b"}',
        '{"action": "start", "url": "https://evil.example/", "request": 1}',
        '{"action": "start", "backend": ["render"]}',
        '{"action": "start", "backend": "render\\u0000"}',
        '{"action": "start", "backend": "https://evil.example/"}',
        '{"action": "cancel", "job": {"$ne": 1}}',
        '{"action": "cancel", "job": "\' OR 1=1"}',
    ],
)
async def test_hostile_input_is_answered_with_an_error(running: Stack, text: str) -> None:
    before = len(running.logs("web"))
    async with browse(running) as visitor:
        await visitor.send(text)
        assert (await visitor.error())["message"]
        # Params go to the backend as they are; none of them is an address for us.
        jobs = await visitor.starts(1, seconds=0.2, url="https://evil.example/")
        assert await visitor.end_states(jobs) == {"succeeded"}
    assert "Traceback" not in running.logs("web")[before:]


# Pages


async def test_every_page_has_a_strict_content_policy(running: Stack) -> None:
    async with person(running, "operator") as session:
        for path in ("/", "/login/", "/admin/", "/admin/progrock/job/", "/healthz"):
            async with session.get(running.url + path) as answer:
                text = await answer.text()
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy, path
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["X-Frame-Options"] == "DENY"
                if answer.content_type == "text/html" and answer.status == 200:
                    inline = r"<script(?![^>]*(\bsrc=|application/json))|<style|\son\w+=|\sstyle="
                    assert not re.search(inline, text), path


async def test_in_production_cookies_travel_over_https_only(stack: Callable[..., Stack]) -> None:
    production = {"DEBUG": "0", "SECRET_KEY": secrets.token_urlsafe(60)}
    production |= {"ALLOWED_HOSTS": "127.0.0.1"}
    production |= {"PROGROCK_BEHIND_PROXY": "1", "PROGROCK_ANONYMOUS": "1"}
    with stack(workers=0, env=production) as up:
        checked = up.manage("check", "--deploy", "--fail-level", "WARNING")
        assert "no issues" in checked.stdout + checked.stderr
        async with client() as session:
            assert (await get(up, session, "/"))[0] == 301
            status, _ = await get(up, session, "/healthz")
            assert status == 200, "load balancers ask over plain HTTP"
            by_https = {"X-Forwarded-Proto": "https"}
            async with session.get(f"{up.url}/", headers=by_https) as answer:
                assert answer.status == 200
                assert "max-age=31536000" in answer.headers["Strict-Transport-Security"]
                morsel = answer.cookies["sessionid"]
                assert morsel["secure"]
                assert morsel["httponly"]
                assert morsel["samesite"] == "Lax"
            for path in ("/nothing", f"/jobs/{uuid.uuid4()}"):
                async with session.get(up.url + path, headers=by_https) as answer:
                    assert answer.status == 404
                    assert "urlpatterns" not in await answer.text()
                    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert (await get(up, session, "/login/", Host="evil.example", **by_https))[0] == 400
            status, _ = await get(up, session, "/healthz", Host="10.1.2.3:8000")
            assert status == 200, "a probe comes by IP"
        async with client() as session, session.ws_connect(up.ws_url):
            [made] = [each for each in session.cookie_jar if each.key == "sessionid"]
            assert made["secure"]
            assert made["httponly"]
            assert made["samesite"] == "Lax"
