"""`sentinel-wasm trace`: what a running agent decides, live."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

import click
import orjson

from sentinel_wasm import logs
from sentinel_wasm.cli.agent import address
from sentinel_wasm.cli.following import Away, Event, Follower, News
from sentinel_wasm.decision import FAILED, OVERLOADED, VERDICTS
from sentinel_wasm.errors import UserError
from sentinel_wasm.guest.abi import EVENT_HOOKS
from sentinel_wasm.settings import Address

_PAUSE_S = 0.25  # between questions
_KEPT = 512  # what an agent keeps
_COLOURS = {
    "allow": "green",
    "redirect": "yellow",
    "challenge": "yellow",
    **dict.fromkeys(("block", "drop", "close"), "red"),
}


def _regex(text: str) -> re.Pattern[str]:
    """A type of option."""
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is no regular expression: {error}.") from None


class Filter(NamedTuple):
    """Which events are shown: those that are all of it; what is None, False or empty asks for nothing."""

    decisions: tuple[str, ...]
    hooks: tuple[str, ...]
    part: str | None
    tag: re.Pattern[str] | None
    failed: bool

    def fits(self, event: Event) -> bool:
        """Where the agent could not keep an event's tags, they may have been any."""
        tags = event["tags"]
        return (
            (not self.decisions or event["decision"] in self.decisions)
            and (not self.hooks or event["hook"] in self.hooks)
            and (self.part is None or self.part.lower() in event["correlation_id"].lower())
            and (self.tag is None or event["is_cut"] or any(map(self.tag.search, tags)))
            and (not self.failed or event["is_cut"] or FAILED in tags or OVERLOADED in tags)
        )


@click.command()
@click.argument("admin", type=address, required=False, envvar="WASM_ADMIN", metavar="ADMIN")
@click.option(
    "-n", "--last", type=click.IntRange(0, _KEPT), default=10, show_default=True, help="So many from before."
)
@click.option("--decision", "decisions", multiple=True, type=click.Choice(VERDICTS), help="Repeatable.")
@click.option("--hook", "hooks", multiple=True, type=click.Choice(EVENT_HOOKS), help="Repeatable.")
@click.option("--id", "part", metavar="TEXT", help="What the correlation id has in it.")
@click.option("--tag", type=_regex, metavar="REGEX", help="What is found in one of the tags.")
@click.option("--failed", is_flag=True, help="What the module failed at, or was not asked for overload.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an event.")
def trace(
    admin: Address | None,
    last: int,
    decisions: tuple[str, ...],
    hooks: tuple[str, ...],
    part: str | None,
    tag: re.Pattern[str] | None,
    failed: bool,
    as_json: bool,
) -> int:
    """Follow what a running agent decides, until Ctrl-C.

    ADMIN is the agent's --admin address: :9100, or host:port; WASM_ADMIN where it is left out.

    \b
    sentinel-wasm trace :9100 --decision block --decision challenge
    """
    if admin is None or admin.port == 0:
        raise click.UsageError("expected the agent's --admin address, as :9100, or WASM_ADMIN.")
    wanted = Filter(decisions, hooks, part, tag, failed)
    with contextlib.suppress(KeyboardInterrupt):
        for event in _events(admin, wanted, last):
            click.echo(orjson.dumps(event) if as_json else _line(event))
    return 0


def _events(admin: Address, wanted: Filter, last: int) -> Iterator[Event]:
    """The last of those that are kept, then what comes, for ever."""
    follower = Follower(admin)
    try:
        kept = [event for event in follower.news().events if wanted.fits(event)]
    except Away as away:
        raise UserError(f"no answer from {admin}: {away}; expected an agent's --admin address") from None
    yield from kept[max(len(kept) - last, 0) :]
    while True:
        time.sleep(_PAUSE_S)
        yield from filter(wanted.fits, _news(follower).events)


def _news(follower: Follower) -> News:
    """As the follower's, and says what else there is to say; while the agent is away, waits for it."""
    try:
        news = follower.news()
    except Away as away:
        _say(f"the agent is away: {away}")
        news = _waited_for(follower)
        _say("the agent is back")
    if news.is_another:
        _say("it was restarted or upgraded")
    if news.missed > 0:
        _say(f"{news.missed:,} events missed: more came than the agent keeps")
    return news


def _waited_for(follower: Follower) -> News:
    while True:
        time.sleep(_PAUSE_S)
        with contextlib.suppress(Away):
            return follower.news()


def _say(text: str) -> None:
    click.echo(f"-- {text} --", err=True)


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S.%f")[:-3]
    decision = event["decision"] if event["status"] is None else f"{event['decision']} {event['status']}"
    took = f"{event['took_us']:.1f} µs" if event["took_us"] < 1000 else f"{event['took_us'] / 1000:.1f} ms"
    parts = [
        when,
        click.style(f"{logs.escaped(decision):12}", fg=_COLOURS.get(event["decision"])),
        f"{took:>9}",
        f"{logs.escaped(event['hook']):19}",
        logs.escaped(event["correlation_id"]) or "-",
        logs.escaped("; ".join(_words(event))),
    ]
    return "  ".join(parts).rstrip()


def _words(event: Event) -> Iterator[str]:
    for name, words in (
        ("tags", event["tags"]),
        ("rules", event["rule_ids"]),
        ("reasons", event["reasons"]),
    ):
        if words:
            yield f"{name} {', '.join(words)}"
    if event["is_cut"]:
        yield "more than is kept"
