"""Who is in control: several pages, strangers, and those who say too much."""

import http.client
import json
import time

import pytest
from console_testing import Page, make_config, moved, now_ms, page, playing, until
from websockets.exceptions import InvalidStatus

from hilserl.console.access import TOKEN_VARIABLE, Access
from hilserl.errors import ServiceError
from hilserl.link.certificates import create_console_certificate


def test_two_pages_fight_for_control(game, operator) -> None:
    with page(game) as second, page(game) as third:
        refused = second.do("hold")
        assert not refused["ok"] and "not in control" in refused["error"]
        second.drive(1.0, 0.0, 0.0)
        until(lambda: any(one["type"] == "reply" and "not in control" in one["error"] for one in second.messages))
        assert operator.state["control"] == "policy"
        assert second.ask({"type": "request_control"})["ok"]
        request = until(lambda: operator.last("control")["request"])
        assert request["from"] == second.last("hello")["you"]
        assert "already" in third.ask({"type": "request_control"})["error"]
        assert "left to answer" in second.ask({"type": "take_control"})["error"]
        assert operator.ask({"type": "deny_control"})["ok"]
        until(lambda: second.last("control")["request"] is None)
        assert second.ask({"type": "request_control"})["ok"]
        with operator.driving(0.3, 0.0, 0.0):
            operator.sees(lambda state: state["control"] == "human")
            assert operator.ask({"type": "grant_control"})["ok"]  # handed over while driving: the arm holds, and nobody drives
            second.sees(lambda state: state["control"] == "held")
        until(lambda: second.last("control")["you"] and not operator.last("control")["you"])
        assert not operator.do("resume")["ok"]
        assert second.do("resume")["ok"]
        assert second.ask({"type": "release_control"})["ok"]
        until(lambda: third.last("control")["controller"] is None)


@pytest.mark.failure("R21")
def test_stale_and_overtaken_commands_are_dropped(game, operator) -> None:
    for _ in range(20):
        operator.say({"type": "ping", "at": now_ms()})
    operator.last("pong")
    first = len(game.link.steps)
    for sequence in (1, 2, 3):
        operator.drive(1.0, 0.0, 0.0, sequence=sequence, at=now_ms() - 1000.0)  # a second on its way
    late = operator.ask({"type": "command", "name": "take_over", "at": now_ms() - 5000.0})
    assert not late["ok"] and "on the way" in late["error"]
    said = [one["error"] for one in list(operator.messages) if one["type"] == "reply" and one["id"] is None]
    assert len(said) == 1 and "ms late; they are dropped" in said[0]  # once, not 25 times a second
    time.sleep(0.3)
    assert operator.state["control"] == "policy" and not any(step.is_intervention for step in game.link.steps[first:])
    assert operator.ask({"type": "command", "name": "hold", "at": now_ms() - 5000.0})["ok"]  # what stops the arm is never too late
    operator.sees(lambda state: state["control"] == "held")
    assert operator.do("take_over")["ok"]
    operator.drive(0.0, 0.0, 0.0, sequence=10)
    operator.drive(1.0, 0.0, 0.0, sequence=9)  # overtaken
    operator.sees(lambda state: state["control"] == "held")
    assert moved([step for step in game.link.steps[first:] if step.is_intervention]) < 1e-6


def test_garbage_harms_nobody(game, operator) -> None:
    garbage = [
        "", "{", "[]", "null", "1e999", '"drive"', "\x00" * 100, "[" * 3000, '{"type": 7}', '{"type": "drive"}', '{"type": "sudo"}',
        '{"type": "drive", "seq": 1, "at": NaN, "action": [0, 0, 0]}', '{"type": "drive", "seq": 1, "at": 1, "action": ["x"]}',
        '{"type": "drive", "seq": 1, "at": 1, "action": [Infinity, 0, 0]}', '{"type": "drive", "seq": "1", "at": 1, "action": []}',
        '{"type": "command", "name": [], "at": 1, "id": 1}', '{"type": "watch", "cameras": 7}', '{"type": "watch", "max_hz": "fast"}',
        '{"type": "seen"}',
    ]  # fmt: skip
    with page(game) as stranger:
        for text in garbage:
            stranger.say(text)
        stranger.last("reply")
        assert stranger.ask({"type": "request_control"})["ok"]  # 19 are forgiven
        stranger.say("one too many")
        assert until(lambda: stranger.closed)[0] == 4400
    with page(game) as stranger:
        stranger.say(json.dumps({"type": "ping", "at": 1, "text": "x" * 5000}))
        assert until(lambda: stranger.closed)[0] == 1009
    with page(game) as stranger:
        stranger.socket.send(b"\x00\x01\x02")
        stranger.last("reply")
    for text in garbage[:10]:
        operator.say(text)  # also from the page in control
    assert operator.do("pause")["ok"] and operator.do("start")["ok"]
    operator.sees(lambda state: state["control"] == "policy" and state["alive"])


def test_a_flood_ends_its_connection_and_nobody_elses(game, operator) -> None:
    with page(game) as flooder:
        for _ in range(3000):
            flooder.say('{"type": "ping", "at": 1}')
            if flooder.closed:
                break
        assert until(lambda: flooder.closed)[0] == 4429
    steps = len(game.link.steps)
    game.until(lambda: len(game.link.steps) > steps + 5)
    assert operator.do("pause")["ok"] and operator.do("start")["ok"]


def test_too_many_pages_are_turned_away_and_ten_look_at_once(game, operator) -> None:
    pages: list[Page] = []
    try:
        for _ in range(31):
            pages.append(Page(game.url))
        assert all(one.state["alive"] for one in pages[:10])
        with page(game) as one_too_many:
            assert until(lambda: one_too_many.closed)[0] == 4503
    finally:
        for one in pages:
            one.close()
    operator.sees(lambda state: state["viewers"] == 1)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_pages_of_other_sites_are_refused(game, origin) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Page(game.url, origin=origin)
    assert refused.value.response.status_code == 403
    for method, path in (("GET", "/"), ("POST", "/login"), ("GET", "/api/state")):
        assert answer(game.url, method, path, {"Origin": origin})[0] == 403
    assert answer(game.url, "GET", "/", {"Host": "console.evil.example"})[0] == 403  # a name that was pointed here


def test_the_page_keeps_to_itself(game) -> None:
    status, headers, body = answer(game.url, "GET", "/", {})
    assert status == 200 and b"<html" in body
    assert "default-src 'self'" in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]
    assert "server" not in headers
    for path in (
        "/static/../hub.py",
        "/static/%2e%2e/operator.py",
        "/replays/..%2f../wrist/0.jpg",
        "/replays/000000/nothing/0.jpg",
        "/docs",
    ):
        assert answer(game.url, "GET", path, {})[0] in (404, 422)


def test_with_a_token_nobody_else_comes_in(own_home, monkeypatch) -> None:
    token = "a-token-of-a-test-0123456789"
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with playing() as game:
        with page(game) as stranger:
            assert until(lambda: stranger.closed)[0] == 4401
        assert answer(game.url, "GET", "/api/state", {})[0] == 401
        assert answer(game.url, "GET", "/replays/000000/wrist/0.jpg", {})[0] == 401
        assert answer(game.url, "GET", "/?token=wrong", {})[1].get("set-cookie") is None
        assert answer(game.url, "GET", "/api/state", {"Authorization": f"Bearer {token}"})[0] == 200
        status, headers, _ = answer(game.url, "GET", f"/?token={token}", {})
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and token not in cookie
        with page(game, additional_headers={"Cookie": cookie.partition(";")[0]}) as friend:
            friend.control()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert answer(game.url, "POST", "/login", form, f"token={token}")[0] == 303
        assert answer(game.url, "POST", "/login", form, "token=" + "x" * 9000)[0] == 413
        assert answer(game.url, "POST", "/login", form, "token=wrong")[0] == 401


def test_beyond_loopback_only_with_a_certificate_and_a_token(own_home, tmp_path) -> None:
    config = make_config(console__host="0.0.0.0")
    with pytest.raises(ServiceError, match="certificates create --console"):
        Access.of(config.console, "robot-host")
    create_console_certificate(own_home / "certificates", ["robot.lab"])
    access = Access.of(config.console, "robot-host")
    assert access.token is not None and access.certificate is not None and "robot.lab" in access.names
    assert ((own_home / "console" / "token").stat().st_mode & 0o777) == 0o600
    with pytest.raises(ServiceError, match=r"is for robot\.lab"):
        Access.of(make_config(console__host="10.0.0.7").console, "robot-host")


@pytest.mark.slow
def test_over_tls_the_page_works(own_home, monkeypatch) -> None:
    import ssl

    create_console_certificate(own_home / "certificates", ["robot.lab"])
    with playing(make_config(console__host="0.0.0.0")) as game:
        port = int(until(lambda: game.operator.url).rpartition(":")[2])
        assert game.url == f"https://robot.lab:{port}"
        context = ssl.create_default_context(cafile=str(own_home / "certificates" / "ca.pem"))
        headers = {"Authorization": f"Bearer {Access.of(game.config.console, 'robot-host').token}"}
        with page(f"https://localhost:{port}", ssl=context, additional_headers=headers) as operator:
            operator.control()
            operator.sees(lambda state: state["control"] == "policy")
        with pytest.raises(OSError):
            answer(f"http://127.0.0.1:{port}", "GET", "/", {})  # nothing speaks without TLS there


def answer(url: str, method: str, path: str, headers: dict[str, str], body: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path as a stranger's program would."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return found
