"""Several modules, asked one after the other: the first that does not allow an event answers it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from sentinel_wasm import merging
from sentinel_wasm._fastpath import Normaliser
from sentinel_wasm._metrics import Counts
from sentinel_wasm._quick import Inline, QuickPath
from sentinel_wasm.agent import Agent
from sentinel_wasm.answering import Answering, Reply, allow
from sentinel_wasm.decision import ALLOW, Allow, Decision
from sentinel_wasm.errors import ModuleError, ModuleLoadError, ResultError
from sentinel_wasm.eventlog import EventLog
from sentinel_wasm.guest import abi
from sentinel_wasm.guest.crew import Outcome
from sentinel_wasm.guest.limits import MIB, START_MS
from sentinel_wasm.guest.module import Module
from sentinel_wasm.guest.pool import LATER
from sentinel_wasm.link import HOOK_OF_KIND, Form, Link
from sentinel_wasm.matching import LeftOut, Matches
from sentinel_wasm.protocol import answers, events
from sentinel_wasm.protocol.events import BodyChunk, Event, EventKind
from sentinel_wasm.settings import Settings
from sentinel_wasm.shadow import Shadow

_log = structlog.stdlib.get_logger("agent")

_RESULTS_BYTES = MIB  # of all modules' results of an event: as one may have


class Chain(Answering):
    """Answers events with what the modules of `settings.chain` decide.

    Each has its pool, its limits, its fail mode and its counts; an event is parsed once, and answered once.
    """

    def __init__(
        self,
        settings: Settings,
        modules: Sequence[Module],
        before: Answering | None = None,
        start_ms: int = START_MS,
    ) -> None:
        """`modules` are those of `settings.chain`; `before` is the agent in whose place this comes, and
        counts on. A shadow that cannot be started is left out.

        Raises ModuleLoadError as Agent does.
        """
        kept = before if isinstance(before, Chain) else None
        counts = {link.name: link.counts for link in kept.links} if kept else {}
        results = {shadow.link.name: shadow.results for shadow in kept.shadows} if kept else {}
        links: list[Link] = []
        for linked, module in zip(settings.chain, modules, strict=True):
            name = linked.name
            own = replace(linked.settings, dispatch="threads") if linked.shadow else linked.settings
            try:
                link = Link(
                    own, module, counts.get(name) or Counts(), start_ms, name, is_shadow=linked.shadow
                )
            except ModuleLoadError as error:
                if linked.shadow:
                    _log.error("the shadow module is left out", name=name, reason=str(error))
                    continue
                for started in links:
                    started.pool.close()
                raise
            links.append(link)
        log = EventLog(fail_open=settings.fail_open)
        super().__init__(settings, modules, links, before.counts if before else Counts(), log)
        self.shadows = tuple(Shadow(link, results.get(link.name)) for link in links if link.is_shadow)
        self._live = tuple(link for link in links if not link.is_shadow)
        self.left_out: LeftOut = kept.left_out if kept else OrderedDict()
        self._matches = Matches(settings.chain, self.left_out)
        # It stays closed: an event that several modules see is read in Python.
        self.quick = QuickPath(
            Normaliser("canonical", False),
            Inline((), ()),
            None,
            self._limit_ns,
            self._live[0].module.hooks,
            self._live[0].ends.last_hook,
            {},
            self.counts,
        )
        self.set_debug(False)

    def _answer(
        self, kind: EventKind, payload: Any, version: int, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        event = events.parse(kind, payload)
        if isinstance(event, events.Configure):
            return self._configure(event, version, deadline_ns, reply)
        hook = HOOK_OF_KIND[kind]
        self._matches.look_at(event, payload)
        return self._walk(hook, event, version, deadline_ns, reply, mends=version == 2)

    def _answer_chunk(
        self, kind: EventKind, chunk: BodyChunk, deadline_ns: int, reply: Reply
    ) -> bytes | None:
        self._matches.look_at(chunk)
        return self._walk(HOOK_OF_KIND[kind], chunk, 2, deadline_ns, reply, mends=False)

    def _walk(
        self, hook: int, event: Event, version: int, deadline_ns: int, reply: Reply, *, mends: bool
    ) -> bytes | None:
        """`mends`: the proxy needs a mutation where the modules have none (answers.for_response_body)."""
        seen_ns = self.counts.seen(deadline_ns - self._limit_ns)

        def goes_on(link: Link, outcome: Outcome) -> None:
            """A worker has asked the module for which the event has waited."""
            try:
                walk.take(link, outcome)
                if not walk.is_at_end():
                    return
                self._has(seen_ns)
                answer = self._finish(walk, event, version, seen_ns, mends)
            except Exception as error:
                answer = self._answer_defect(error, hook, version, event.correlation_id)
            self.counts.took(seen_ns)
            reply(event.correlation_id, answer)

        walk = _Walk(self._asked(hook, event), hook, event, deadline_ns, goes_on)
        return self._finish(walk, event, version, seen_ns, mends) if walk.is_at_end() else None

    def _asked(self, hook: int, event: Event) -> list[Link]:
        return [
            link
            for link in self._live
            if link.module.hooks[hook] and self._matches.takes(link.name, hook, event)
        ]

    def _finish(self, walk: _Walk, event: Event, version: int, seen_ns: int, mends: bool) -> bytes:
        """The answer to an event whose walk has ended; `event` is as the proxy sent it."""
        hook, decision, identity = walk.hook, walk.decision, event.correlation_id
        if self.quick.is_logged(identity):
            self._events.decided(decision, hook, identity, seen_ns, by=walk.decided_by)
        for shadow in self.shadows:
            if self._matches.takes(shadow.link.name, hook, event):
                shadow.ask_later(hook, event, decision)
        are_over = [link.answered(hook, event, decision) for link in self._live]
        if all(are_over):
            self._matches.forget(identity)
        chunk_index = 0
        if isinstance(event, BodyChunk):
            chunk_index = event.chunk_index
            if hook == abi.ON_RESPONSE_BODY and mends:
                echo = self.settings.echo_response_bodies
                decision = answers.for_response_body(decision, event.data, echo=echo)
        if decision is ALLOW:
            return self._decided(decision, hook, version, identity, allow(hook, version))
        return self._say(decision, hook, version, identity, chunk_index=chunk_index)


class _Walk:
    """One event on its way from module to module, until one does not allow it; `decision` is theirs so far.

    `goes_on` gets what a worker has asked; then `take` and `is_at_end` follow.
    """

    def __init__(
        self,
        links: Iterable[Link],
        hook: int,
        event: Event,
        deadline_ns: int,
        goes_on: Callable[[Link, Outcome], None],
    ) -> None:
        self.hook = hook
        self.decision = ALLOW
        self.decided_by = ""
        self._ahead = iter(links)
        self._event = event  # as the next module sees it
        self._read: dict[Form, bytes] = {}  # by modules of each form of headers
        self._deadline_ns = deadline_ns
        self._goes_on = goes_on
        self._results_bytes = 0

    def is_at_end(self) -> bool:
        """Ask one module after another; False where a worker has to ask the next."""
        while (link := next(self._ahead, None)) is not None:
            data = self._read.get(link.form)
            if data is None:
                data = self._read[link.form] = link.input(self._event)
            goes_on = partial(self._goes_on, link)
            outcome = link.ask(self.hook, self._event, data, self._deadline_ns, goes_on)
            if outcome is LATER:
                return False
            self.take(link, outcome)
        return True

    def take(self, link: Link, outcome: Outcome) -> None:
        """What a module has said."""
        if self.hook == abi.ON_REQUEST_COMPLETE and not isinstance(outcome, ModuleError):
            outcome = None  # the request is over
        decision = link.decision(self.hook, self._event.correlation_id, outcome)
        try:
            joined = self._joined(decision, outcome)
        except ResultError as error:
            decision = link.failed(error, self.hook, self._event.correlation_id)
            joined = merging.joined(self.decision, decision)
        link.counts.decided(self.hook, decision.verdict.number)
        if self.hook == abi.ON_REQUEST_COMPLETE:
            self.decision = joined if isinstance(self.decision.verdict, Allow) else self.decision
            return
        self.decision = joined
        if isinstance(decision.verdict, Allow):
            self._see(merging.seen_after(self.hook, self._event, decision))
        else:
            self.decided_by = link.name
            self._ahead = iter(())

    def _see(self, event: Event) -> None:
        if event is not self._event:
            self._event, self._read = event, {}

    def _joined(self, decision: Decision, outcome: Outcome) -> Decision:
        """Raises ResultError where the modules together say more than one may."""
        size = len(outcome) if isinstance(outcome, bytes) else 0
        if self._results_bytes + size > _RESULTS_BYTES:
            raise ResultError(f"the results of the modules for one event are over {_RESULTS_BYTES} bytes")
        joined = merging.joined(self.decision, decision)
        self._results_bytes += size
        return joined


def agent_for(
    settings: Settings,
    modules: Sequence[Module],
    before: Answering | None = None,
    start_ms: int = START_MS,
) -> Answering:
    """Of one module or of several; the rest as for Chain. Raises ModuleLoadError."""
    if settings.chain:
        return Chain(settings, modules, before, start_ms)
    return Agent(settings, modules[0], before.counts if before else None, start_ms)
