"""`make run`: an agent on a module, requests played at its socket, its decisions; then it goes on serving."""

from __future__ import annotations

import argparse
import base64
import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

BROWSER = {"host": ["shop.example"], "user-agent": ["Mozilla/5.0 (X11; Linux x86_64)"]}
FORM = {**BROWSER, "content-type": ["application/x-www-form-urlencoded"]}


class Play(NamedTuple):
    what: str
    kind: EventKind
    payload: dict[str, Any]


def chunk(correlation_id: str, text: str) -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    size = len(text.encode())
    return {
        "correlation_id": correlation_id,
        "data": data,
        "is_last": True,
        "total_size": size,
        "chunk_index": 0,
    }


def plays() -> list[Play]:
    headers, response = EventKind.REQUEST_HEADERS, EventKind.RESPONSE_HEADERS
    admin = {**BROWSER, "authorization": ["Bearer token"]}
    bot = {**BROWSER, "user-agent": ["examplebot/1.0"]}
    served = {"content-type": ["text/plain"], "content-length": ["29"], "server": ["nginx"]}
    return [
        Play("GET /products", headers, request_headers("1", uri="/products", headers=BROWSER)),
        Play("GET /../etc/passwd", headers, request_headers("2", uri="/../etc/passwd", headers=BROWSER)),
        Play("GET /admin, no credentials", headers, request_headers("3", uri="/admin", headers=BROWSER)),
        Play("GET /admin, with credentials", headers, request_headers("4", uri="/admin", headers=admin)),
        Play("GET / from examplebot", headers, request_headers("5", headers=bot)),
        Play("POST /comments", headers, request_headers("6", "POST", "/comments", FORM)),
        Play(
            "  its body, with a script",
            EventKind.REQUEST_BODY_CHUNK,
            chunk("6", "text=<script>alert(1)</script>"),
        ),
        Play("response headers", response, {"correlation_id": "1", "status": 200, "headers": served}),
        Play(
            "  its body, with a card",
            EventKind.RESPONSE_BODY_CHUNK,
            chunk("1", "card: 4111-1111-1111-1234 ok\n"),
        ),
    ]


def describe(answer: dict[str, Any]) -> tuple[str, str]:
    """The decision in a word or two, and what else the answer does."""
    decision = answer["decision"]
    word = decision
    if isinstance(decision, dict):
        ((word, detail),) = decision.items()
        word = f"{word} {detail.get('status') or detail.get('challenge_type')}"
    done = []
    for name in ("request_headers", "response_headers"):
        for operation in answer[name]:
            ((op, header),) = operation.items()
            done.append({"set": "+", "add": "+", "remove": "-"}[op] + header["name"])
    if (mutation := answer["response_body_mutation"]) is not None and "masked" in answer["audit"]["tags"]:
        done.append("body: " + base64.b64decode(mutation["data"]).decode().strip())
    done += [f"#{tag}" for tag in answer["audit"]["tags"]]
    return word, " ".join(done)


def play(socket: Path) -> None:
    with ClientV2(socket) as client:
        client.ask(EventKind.REQUEST_HEADERS, request_headers("warm-up"))
        print(f"\n{'event':<30} {'decision':<22} {'µs':>5}  what else")
        for what, kind, payload in plays():
            start = time.perf_counter()
            answer = client.ask(kind, payload)
            took_us = (time.perf_counter() - start) * 1e6
            word, done = describe(answer)
            print(f"{what:<30} {word:<22} {took_us:>5.0f}  {done}")


def wait_for(socket: Path, agent: subprocess.Popen[bytes]) -> None:
    while agent.poll() is None:
        with contextlib.suppress(OSError):
            ClientV2(socket).close()
            return
        time.sleep(0.02)
    sys.exit(agent.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    options = parser.parse_args()
    with contextlib.suppress(OSError):
        ClientV2(options.socket).close()
        sys.exit(
            f"an agent is already serving on {options.socket}; stop it, or choose another: make run SOCKET=…"
        )
    command = [sys.executable, "-m", "sentinel_wasm.cli.agent"]
    agent = subprocess.Popen([*command, "--module", str(options.module), "--socket", str(options.socket)])
    try:
        wait_for(options.socket, agent)
        play(options.socket)
        print(
            f"\nServing {options.module} on {options.socket}, for v1 and v2 proxies; Ctrl-C ends it.",
            flush=True,
        )
        sys.exit(agent.wait())
    except KeyboardInterrupt:
        sys.exit(agent.wait())
    finally:
        agent.terminate()


if __name__ == "__main__":
    main()
