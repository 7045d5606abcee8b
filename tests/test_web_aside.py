"""Slow answers: one at a time, and others need not wait for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from fastapi.testclient import TestClient

from vistadex.web.aside import aside


def test_slow_answers_wait_for_each_other_and_quick_ones_for_none() -> None:
    go_on, started, together, most = threading.Event(), threading.Event(), [0], [0]

    def slow() -> int:
        together[0] += 1
        most[0] = max(most[0], together[0])
        started.set()
        assert go_on.wait(30)
        together[0] -= 1
        return 1

    def quick() -> int:
        return 2

    app = FastAPI()
    app.add_api_route("/slow", aside(slow))
    app.add_api_route("/quick", quick)
    # More than there are threads for quick answers.
    with TestClient(app) as client, ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(client.get, "/slow") for _ in range(60)]
        assert started.wait(30)
        assert client.get("/quick").json() == 2
        go_on.set()
        assert [one.result(30).json() for one in waiting] == [1] * 60
    assert most == [1]


def test_an_error_frees_the_place() -> None:
    def fail() -> int:
        raise ValueError("no")

    app = FastAPI()
    app.add_api_route("/slow", aside(fail))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert [client.get("/slow").status_code for _ in range(3)] == [500] * 3
