"""What every request passes, and what every answer carries."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from segmentation.serve.guard import Buckets, Guard, Rules

TOKEN = "correct-horse-battery-staple"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers by the size of what it was sent; /api/fault fails."""
    if scope["path"] == "/api/fault":
        raise ValueError("Doe^Jane")
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    method: str, path: str, *, headers: dict[str, str] | None = None, content: Any = None, guard: Guard | None = None,
    **rules: Any,
) -> httpx.Response:  # fmt: skip
    """Send one request through a guard."""
    stands = guard or Guard(application, Rules(**({"token": None, "names": [], "rate": 100, "upload": 1000} | rules)))

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(stands, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers, content=content)

    return asyncio.run(send())


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "10.0.0.7", "scans.example:80"]
)
def test_its_own_names_and_addresses_are_answered(host: str):
    assert ask("GET", "/api/jobs", headers={"host": host}, names=["scans.example"]).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[::1].evil"],
)
def test_a_name_that_was_rebound_to_this_address_is_refused(host: str):
    answer = ask("GET", "/api/jobs", headers={"host": host})
    assert answer.status_code == 403
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),
        ("POST", {"origin": "http://127.0.0.1:8000"}, 200),
        ("POST", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
        ("POST", {"origin": "https://evil.example"}, 403),
        ("POST", {"origin": "http://127.0.0.1:9999"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": ""}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("DELETE", {"origin": "https://evil.example"}, 403),
        ("GET", {"sec-fetch-site": "none"}, 200),
    ],
)
def test_a_page_of_another_origin_changes_nothing(method: str, headers: dict[str, str], status: int):
    assert ask(method, "/api/jobs", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN} ", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_a_token_is_asked_for_by_the_api(given: str, status: int):
    headers = {"authorization": given.encode("latin-1")} if given else {}
    answer = ask("GET", "/api/jobs", headers=headers, token=TOKEN)
    assert answer.status_code == status
    assert TOKEN not in answer.text
    assert ("www-authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/health"])
def test_the_page_itself_needs_no_token(path: str):
    assert ask("GET", path, token=TOKEN).status_code == 200


def test_who_guesses_tokens_has_to_wait_and_who_knows_it_does_not():
    guard = Guard(application, Rules(TOKEN, [], 100, 1000))
    assert {ask("GET", "/api/jobs", guard=guard).status_code for _ in range(20)} == {401}, "none was given"
    answers = [ask("GET", "/api/jobs", headers={"authorization": f"Bearer {n}"}, guard=guard) for n in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert ask("GET", "/api/jobs", headers={"authorization": f"Bearer {TOKEN}"}, guard=guard).status_code == 200


def test_too_many_requests_are_refused_with_a_time_to_wait():
    guard = Guard(application, Rules(None, [], 0.5, 1000))
    answers = [ask("GET", "/api/jobs", guard=guard) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0


def test_a_bucket_fills_again_and_clients_do_not_share_one():
    now = [0.0]
    buckets = Buckets(2.0, 4.0, lambda: now[0])
    assert [buckets.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert buckets.take("b")
    now[0] = 1.0
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]


def test_clients_of_long_ago_are_forgotten():
    now = [0.0]
    buckets = Buckets(1.0, 1.0, lambda: now[0])
    for client in range(5000):
        now[0] += 1
        buckets.take(str(client))
    assert len(buckets._left) <= 4100


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(("path", "most"), [("/api/jobs", 65536), ("/api/uploads", 66536)])
def test_a_body_may_be_so_large_and_no_larger(path: str, most: int, stated: bool):
    async def parts(size: int) -> Any:
        for start in range(0, size, 1000):
            yield b"x" * min(1000, size - start)

    def body(size: int) -> Any:
        return b"x" * size if stated else parts(size)

    assert ask("POST", path, content=body(most)).text == str(most)
    refused = ask("POST", path, content=body(most + 1))
    assert (refused.status_code, refused.json()) == (413, {"detail": "the request is larger than this server takes"})


def test_every_answer_carries_what_keeps_browsers_strict():
    for path in ("/", "/api/jobs", "/api/fault"):
        headers = ask("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert ask("GET", "/api/jobs").headers["cache-control"] == "no-store"
    policy = ask("GET", "/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert "http" not in policy
    assert "sandbox" in ask("GET", "/api/jobs").headers["content-security-policy"]


def test_a_fault_of_ours_is_logged_without_what_was_sent(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "skipseg.serve")
    answer = ask("GET", "/api/fault?filename=Doe^Jane")
    assert (answer.status_code, answer.json()) == (500, {"detail": "internal error"})
    assert "ValueError at test_guard.py:" in caplog.text
    assert "Doe" not in caplog.text


def test_requests_are_logged_without_their_paths(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "skipseg.serve")
    ask("GET", "/Doe_Jane?name=Doe")
    assert "GET - 200" in caplog.text
    assert "Doe" not in caplog.text


def test_a_request_that_breaks_off_is_no_fault(caplog: pytest.LogCaptureFixture):
    messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/jobs", "headers": [(b"host", b"localhost")]}
    guard: Callable[..., Any] = Guard(application, Rules(None, [], 1, 1))
    asyncio.run(guard(scope, receive, send))
    assert sent == []
    assert "ERROR" not in caplog.text


def test_websockets_are_not_served():
    heard: list[Any] = []

    async def send(message: Any) -> None:
        heard.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    guard: Callable[..., Any] = Guard(application, Rules(None, [], 1, 1))
    asyncio.run(guard({"type": "websocket", "path": "/"}, receive, send))
    assert heard == []
