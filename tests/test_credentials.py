"""Which headers' values are never shown."""

from __future__ import annotations

import pytest

from sentinel_wasm.credentials import MASK, is_credential, masked

pytestmark = pytest.mark.parallel

SECRET = [
    *("Authorization", "proxy-authorization", "Authentication-Info", "Cookie", "SET-COOKIE", "Set-Cookie2"),
    *("X-Api-Key", "x-apikey", "Api-Key", "Access_Key", "Private-Key", "X-Auth", "X-JWT", "X-Auth-Token"),
    *("X-Amz-Security-Token", "X-Csrf-Token", "X-Goog-Iap-Jwt-Assertion", "X-Session-Id", "X-Client-Secret"),
    *("Password", "X-Passwd", "X-Signature", "X-Hub-Signature-256", "X-Forwarded-Authorization"),
]
OPEN = [
    *("Host", "User-Agent", "X-Author", "Keep-Alive", "X-Forwarded-For", "X-Keyboard", "Authority", "ETag"),
    *(
        "Accept",
        "Content-Type",
        "Content-Security-Policy",
        "X-Request-Id",
        "X-Wasm-Processed",
        "Sec-Fetch-Site",
    ),
]


@pytest.mark.parametrize("name", SECRET)
def test_credentials_are_masked(name: str) -> None:
    assert is_credential(name)
    assert masked(name, "s3cret") == MASK


@pytest.mark.parametrize("name", OPEN)
def test_other_headers_are_shown(name: str) -> None:
    assert not is_credential(name)
    assert masked(name, "value") == "value"
