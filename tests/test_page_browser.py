"""The page of --admin in a real browser: what it shows of a live agent, and what a person does there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from sentinel_wasm.client import ClientV2, request_headers
from sentinel_wasm.protocol.events import EventKind

from .conftest import RunningAgent, StartAgent, agents
from .guest import wat
from .scraping import LOCAL, address
from .test_metrics import obedient

pytestmark = pytest.mark.parallel

PATIENCE_S = 20
HOSTILE = "<img src=x onerror=document.title='hacked'>"
PHONE, WIDE = 360, 1400


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("chromium is missing; install: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            "headless",
            "no-sandbox",  # CI is root in a container
            "disable-dev-shm-usage",
            "disable-gpu",
            "no-first-run",
            # Nothing but the page is to be asked for.
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "disable-quic",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent that does as the request's method says."""
    with agents(tmp_path_factory) as start:
        yield start(module_in(tmp_path_factory.mktemp("m")), *LOCAL)


def module_in(directory: Path) -> Path:
    path = directory / "<b>module.wasm"
    path.write_bytes(wat.binary(obedient()))
    return path


@pytest.fixture
def page(browser: webdriver.Chrome, agent: RunningAgent) -> Iterator[Page]:
    resize(browser, WIDE)
    browser.get(f"http://{address(agent)}/")
    yield Page(browser)
    assert console(browser) == []


def console(browser: webdriver.Chrome) -> list[object]:
    """The errors since the last call: of scripts, and of the page's own Content-Security-Policy."""
    found: list[object] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def resize(browser: webdriver.Chrome, width: int) -> None:
    """A window cannot be as narrow as a phone."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


class Page:
    """What a person sees and does."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def until(self, condition: Callable[[], object]) -> None:
        WebDriverWait(self.browser, PATIENCE_S, 0.05).until(lambda _: condition())

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def rows(self) -> list[str]:
        """The table, in one look: rows come and go."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll('#events tbody tr')].map((row) => row.innerText)"
        )
        return found

    def has_asked_more(self, before: int) -> bool:
        return self.asked_after(0) > before

    def asked_after(self, wait_ms: int) -> int:
        """How often the agent was asked so far, so long from now; counted by who wants to know."""
        script = f"setTimeout(() => arguments[0](asked), {wait_ms})"
        return int(self.browser.execute_async_script(script))


def send(agent: RunningAgent, *events: tuple[str, str]) -> None:
    """(method, correlation id)"""
    with agent.v2() as client:
        ask(client, *events)


def ask(client: ClientV2, *events: tuple[str, str]) -> None:
    for method, identity in events:
        client.ask(EventKind.REQUEST_HEADERS, request_headers(identity, method=method))


def test_it_shows_live_what_the_agent_does(page: Page, start_agent: StartAgent, tmp_path: Path) -> None:
    """From before the first event on."""
    agent = start_agent(module_in(tmp_path), *LOCAL)
    page.browser.get(f"http://{address(agent)}/")
    page.until(lambda: page.text("#shown") == "No event has come yet.")
    assert page.text("#state") == "ready"
    assert page.text("#errors") == "None since the start."
    assert page.text("#latency-text") == "No event came in the last 10 s."
    assert "no proxy is connected" in page.text("#agent")
    assert "<b>module.wasm" in page.text("#module")
    with agent.v2() as client:
        ask(client, ("ALLOW", "id-allow"), ("BLOCK", "id-block"), ("REDIRECT", "id-go"), ("TRAP", HOSTILE))
        page.until(lambda: len(page.rows()) == 4 and "1 v2" in page.text("#agent"))
        newest, redirect, block, allow = page.rows()
        assert HOSTILE in newest
        assert "block 500" in newest
        assert "wasm-error" in newest
        assert "unreachable" in newest
        assert "redirect 302" in redirect
        assert "block 403" in block
        assert "seen" in allow
        assert HOSTILE in page.text("#errors")
        assert "trap" in page.text("#errors")
        # The rate of the second in which they came, and the plot, by the next look.
        page.until(lambda: "99% within" in page.text("#latency-text"))
        assert len(page.browser.find_elements(By.CSS_SELECTOR, "#latency rect")) >= 2
        page.find("input[value=all] + span").click()
        page.until(lambda: "99% within" in page.text("#latency-text"))
        ask(client, *[("BLOCK", f"more-{number}") for number in range(50)])
        page.until(lambda: int(page.text(".rate.block b").split(".")[0]) > 0)
    assert page.browser.title == "sentinel-wasm-agent"


def test_events_are_searched_and_filtered(page: Page, agent: RunningAgent) -> None:
    send(agent, ("ALLOW", "needle-1"), ("BLOCK", "needle-2"), ("NONSENSE", "needle-3"), ("ALLOW", "other"))
    page.until(lambda: any("needle-3" in row for row in page.rows()))
    page.find("#search").send_keys("NEEDLE-")
    page.until(lambda: len(page.rows()) == 3)
    page.find("#decision option[value=failed]").click()
    page.until(lambda: [row for row in page.rows() if "needle-3" in row] == page.rows())
    page.find("#search").send_keys("x")
    page.until(lambda: "is like this" in page.text("#shown"))
    assert page.rows() == []
    page.run("document.getElementById('filter').reset()")
    page.find("#hook option[value=on_response_headers]").click()
    page.until(lambda: page.rows() == [])
    # A click on an error's correlation id looks for its events.
    page.find("#hook option[value='']").click()
    page.find("#errors a").click()
    page.until(lambda: len(page.rows()) >= 1 and all(page.text("#errors a") in row for row in page.rows()))


def test_it_stops_while_paused_or_hidden(page: Page, agent: RunningAgent) -> None:
    counting = "window.fetch = (...what) => { asked += 1; return ask(...what); }"
    page.run(f"const ask = fetch; window.asked = 0; {counting}")
    for stop, go_on in (
        ("document.getElementById('pause').click()", "document.getElementById('pause').click()"),
        (hidden("true"), hidden("false")),
    ):
        page.run(stop)
        # For longer than between two polls nothing is asked.
        before = page.asked_after(0)
        assert page.asked_after(1200) == before
        page.run(go_on)
        page.until(partial(page.has_asked_more, before))


def test_two_looks_at_once_show_an_event_once(page: Page, agent: RunningAgent) -> None:
    """As a pause makes them that ends while the agent is still answering."""
    page.until(lambda: page.text("#state") == "ready")
    page.run("document.getElementById('pause').click()")
    send(agent, ("ALLOW", "only-once"))
    page.run("document.getElementById('pause').click(); poll()")
    page.until(lambda: any("only-once" in row for row in page.rows()))
    before = page.run("return history.length")
    page.until(lambda: page.run("return history.length") > before)
    assert page.run("return new Set(events.map((event) => event.number)).size - events.length") == 0


def hidden(value: str) -> str:
    """Headless, no tab is ever hidden: this says that it is."""
    return (
        f"Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {value}}});"
        " document.dispatchEvent(new Event('visibilitychange'))"
    )


def test_a_request_is_tried(page: Page, agent: RunningAgent) -> None:
    form = page.find("#try")
    method = form.find_element(By.NAME, "method")
    method.clear()
    method.send_keys("BLOCK")
    form.find_element(By.CSS_SELECTOR, "button").click()
    page.until(lambda: "block 403" in page.text("#tried"))
    assert "The guest took" in page.text("#tried")
    page.find("#tried summary").click()
    assert '"status": 403' in page.text("#tried .answer")
    # By the keyboard alone, and with a mistake.
    method.send_keys(Keys.CONTROL + "a")
    method.send_keys("TRAP" + Keys.ENTER)
    page.until(lambda: "The module failed" in page.text("#tried"))
    headers = form.find_element(By.NAME, "headers")
    headers.send_keys("\nno header")
    method.send_keys(Keys.ENTER)
    page.until(lambda: "“no header” is not “Name: value”" in page.text("#tried"))


@pytest.mark.parametrize("width", [PHONE, WIDE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phones_and_wide_screens(page: Page, agent: RunningAgent, width: int, scheme: str) -> None:
    resize(page.browser, width)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    send(agent, ("TRAP", "x" * 60), ("ALLOW", "y"))
    page.until(lambda: "x" * 60 in "".join(page.rows()))
    assert page.run("return document.documentElement.scrollWidth") <= width
    red = page.run("return getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0]
    assert (int(red) > 128) is (scheme == "light")


def test_every_field_has_a_name_and_the_first_tab_skips_to_the_events(page: Page) -> None:
    fields = "[...document.querySelectorAll('input, select, textarea')]"
    assert page.run(f"return {fields}.filter((field) => !field.labels.length).length") == 0
    page.find("body").send_keys(Keys.TAB)
    focused = page.browser.switch_to.active_element
    assert focused.text == "Skip to the events"
    focused.send_keys(Keys.ENTER)
    page.until(lambda: page.run("return document.activeElement.id") == "events-title")


def test_it_says_when_the_agent_is_gone_and_when_another_is_there(
    browser: webdriver.Chrome, start_agent: StartAgent, tmp_path: Path
) -> None:
    module = module_in(tmp_path)
    first = start_agent(module, *LOCAL)
    where = address(first)
    browser.get(f"http://{where}/")
    page = Page(browser)
    page.find("#search").send_keys("of-the-")
    send(first, ("BLOCK", "of-the-first"))
    page.until(lambda: len(page.rows()) == 1)
    first.stop()
    page.until(lambda: page.text("#state") == "no answer")
    second = start_agent(module, "--admin", where)
    page.until(lambda: page.text("#state") == "ready")
    page.until(lambda: page.rows() == [])
    send(second, ("BLOCK", "of-the-second"))
    page.until(lambda: len(page.rows()) == 1 and "of-the-second" in page.rows()[0])
    console(browser)  # refused connections
