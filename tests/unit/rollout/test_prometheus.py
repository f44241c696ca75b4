"""A query goes to Prometheus as it is written, and what is wrong with it is said in Prometheus' words."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from raystack.config.rollout import Metric
from raystack.rollout.prometheus import ask


class Prometheus(BaseHTTPRequestHandler):
    """Answers as Prometheus 2.42 does."""

    def do_GET(self) -> None:
        (query,) = parse_qs(urlsplit(self.path).query)["query"]
        known = {
            'sold_total{version="7"}': [{"metric": {}, "value": [1795772274.1, "12"]}],
            "absent": [],
        }
        if query in known:
            status, answer = 200, {"status": "success", "data": {"result": known[query]}}
        else:
            status, answer = 400, {"status": "error", "error": "1:6: parse error: unexpected end of input"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *of: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Prometheus) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def test_a_number_is_of_the_version(url: str) -> None:
    metric = Metric(query='sold_total{version="{version}"}', url=url, min=1.0)
    assert ask(metric, "shop", "models:/shop/7") == 12.0


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("absent", "the query has no result"),
        ("wrong{", "refuses the query: 1:6: parse error: unexpected end of input"),
    ],
)
def test_a_query_without_a_number_is_said(url: str, query: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ask(Metric(query=query, url=url, min=1.0), "shop", "models:/shop/7")
