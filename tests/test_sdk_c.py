"""The C SDK: by its own tests, on this machine's compiler, and as a module under the agent's checks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sentinel_wasm import Module
from sentinel_wasm.errors import UserError

from .conftest import EXAMPLES

pytestmark = pytest.mark.parallel

SDK = EXAMPLES / "sdk" / "c"
PATIENT_MS = 2000

GREETER = r"""
#include "sentinel.h"

static text greeting;

static const char *configure(reader *config) {
    value found = {.type = NOTHING};
    for (text name; next_member(config, &name);) {
        value value = read_value(config);
        if (equals(name, "greeting"))
            found = value;
    }
    if (found.type != STRING)
        return "greeting: a string is wanted";
    greeting = found.text;
    log_text(LOG_WARNING, greeting);
    return NULL;
}
ON_CONFIGURE(configure)

static decision *decide(request *request) {
    (void)request;
    return tag(allow(), greeting);
}
ON_REQUEST_HEADERS(decide)
"""


def test_the_header_passes_its_tests_under_sanitizers() -> None:
    done = subprocess.run([SDK / "test.sh"], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("greeter")
    (folder / "filter.c").write_text(GREETER)
    subprocess.run([SDK / "build.sh", folder / "filter.c", folder / "filter.wasm"], check=True, timeout=120)
    return folder / "filter.wasm"


def test_a_configuration_is_kept_and_logged(greeter: Path) -> None:
    with Module.load(greeter, {"greeting": 'grüß "Gott"', "other": [{}]}, timeout_ms=PATIENT_MS) as module:
        assert module.start_log == (("warning", "log", 'grüß "Gott"'),)
        for _ in range(3):
            decision = module.on_request_headers({"uri": "/"})
            assert decision.audit.tags == ('grüß "Gott"',)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"greeting": 1}, "greeting: a string is wanted"),
        ({}, "greeting: a string is wanted"),
        ({"greeting": "a" * 5000}, "the configuration is too long"),
        ([], "the configuration is not an object"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(greeter: Path, config: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Module.load(greeter, config, timeout_ms=PATIENT_MS)
