'use strict';

// What comes from the agent, and so from modules and proxies, is put in as text: never as HTML.

const POLL_MS = 1000;
const HISTORY_S = 120;
const RECENT_S = 10;
const EVENTS_KEPT = 512;
const IS_NARROW = matchMedia('(max-width: 40rem)');
const VERDICTS = ['allow', 'block', 'redirect', 'challenge', 'drop', 'close'];
const FAILED = ['wasm-error', 'wasm-overload'];
const PREFIX = 'sentinel_wasm_';

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function draw(tag, attributes = {}, text = '') {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

// Words for numbers

function count(value) {
  return Math.round(value).toLocaleString('en');
}

function rate(value) {
  if (value === 0) return '0';
  return value < 10 ? value.toFixed(1) : count(value);
}

function duration(seconds) {
  for (const [unit, size] of [['s', 1], ['ms', 1e-3], ['µs', 1e-6], ['ns', 1e-9]]) {
    if (seconds >= size * 0.9995 || unit === 'ns') return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  }
  return '';
}

function span(seconds) {
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return '0 s';
  return parts.slice(first, first + 2).map(([size, unit], index) => {
    const whole = index ? (seconds % parts[first][0]) / size : seconds / size;
    return `${Math.floor(whole)} ${unit}`;
  }).join(' ');
}

function bytes(value) {
  return value < 1048576 ? `${count(value / 1024)} KiB` : `${Number((value / 1048576).toPrecision(3))} MiB`;
}

function clock(seconds) {
  const time = new Date(seconds * 1000);
  return time.toLocaleTimeString('en-GB') + '.' + String(time.getMilliseconds()).padStart(3, '0');
}

// Metrics, by the names that /metrics has

const series = new Map();

function parsed(name) {
  let found = series.get(name);
  if (!found) {
    const labels = {};
    for (const [, label, value] of name.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[label] = value.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter));
    }
    const bare = name.split('{')[0];
    found = { name: bare.startsWith(PREFIX) ? bare.slice(PREFIX.length) : bare, labels };
    series.set(name, found);
  }
  return found;
}

function by(metrics, name, label) {
  const sums = new Map();
  for (const [key, value] of Object.entries(metrics)) {
    const one = parsed(key);
    if (one.name === name) sums.set(one.labels[label], (sums.get(one.labels[label]) || 0) + value);
  }
  return sums;
}

// Of all modules together, where there are several.
function single(metrics, name) {
  return [...by(metrics, name, '').values()].reduce((sum, value) => sum + value, 0);
}

// How many took up to each bound and longer than the one before, from Prometheus' cumulative buckets.
function buckets(metrics, name) {
  const bounds = [...by(metrics, `${name}_bucket`, 'le')].map(([le, below]) => [le === '+Inf' ? Infinity : Number(le), below]);
  bounds.sort((one, other) => one[0] - other[0]);
  return bounds.map(([bound, below], index) => ({ bound, count: below - (index ? bounds[index - 1][1] : 0) }));
}

function since(now, before) {
  return now.map(({ bound, count: total }, index) => ({ bound, count: total - (before[index] ? before[index].count : 0) }));
}

// Within a bucket times count as spread evenly.
function quantile(parts, share) {
  const all = parts.reduce((sum, part) => sum + part.count, 0);
  let left = all * share;
  for (const [index, part] of parts.entries()) {
    const from = index ? parts[index - 1].bound : 0;
    if (part.count > 0 && left <= part.count) {
      return part.bound === Infinity ? `> ${duration(from)}` : duration(from + (part.bound - from) * (left / part.count));
    }
    left -= part.count;
  }
  return '–';
}

// What the agent said last

let history = [];
let events = [];
let last = 0;
let started = null;
let paused = false;
let timer = 0;
let more = 1;
const rows = new Map();

async function fetched(path) {
  const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error((await answer.text()).slice(0, 200) || `status ${answer.status}`);
  return answer.json();
}

async function poll() {
  clearTimeout(timer);
  const asked = last;
  try {
    const [status, news] = await Promise.all([fetched('/status.json'), fetched(`/events?since=${asked}`)]);
    if (paused || asked !== last) return; // a poll beside this one was quicker, as after a short pause
    const isAnother = started !== null && status.started !== started;
    started = status.started;
    if (isAnother) {
      // It counts anew, and numbers its events anew.
      history = [];
      events = [];
      last = 0;
      rows.clear();
      return void schedule(0);
    }
    last = news.last;
    take(status, news.events);
  } catch (error) {
    state('no answer', 'bad', error.name === 'TypeError' || error.name === 'TimeoutError' ? 'The agent does not answer. Trying again.' : error.message);
  }
  schedule(POLL_MS);
}

function schedule(after) {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(poll, after);
}

function take(status, news) {
  const now = Date.now() / 1000;
  history.push({ at: now, metrics: status.metrics });
  history = history.filter(({ at }) => now - at <= HISTORY_S + 2);
  events = [...news.reverse(), ...events].slice(0, EVENTS_KEPT);
  state(status.ready ? 'ready' : 'not ready', status.ready ? 'good' : 'bad', status.reason);
  byId('age').textContent = `as of ${new Date().toLocaleTimeString('en-GB')}`;
  showRates();
  showAgent(status);
  showModules(status);
  showLatency();
  showErrors(status);
  showWorkers(status);
  showHooks(status);
  showEvents(news.length);
}

function state(word, kind, reason) {
  const pill = byId('state');
  if (pill.textContent !== word) pill.textContent = word;
  pill.className = `pill ${kind}`;
  byId('reason').hidden = !reason;
  byId('reason').textContent = reason || '';
}

// Decisions per second

function between(one, other) {
  const seconds = other.at - one.at;
  const before = by(one.metrics, 'decisions_total', 'decision');
  const found = {};
  for (const [verdict, total] of by(other.metrics, 'decisions_total', 'decision')) {
    found[verdict] = Math.max(0, total - (before.get(verdict) || 0)) / seconds;
  }
  return found;
}

function showRates() {
  const [before, now] = history.slice(-2);
  const rates = now ? between(before, now) : {};
  const total = Object.values(rates).reduce((sum, value) => sum + value, 0);
  byId('rates').replaceChildren(
    make('div', { class: 'rate total' }, make('b', {}, now ? rate(total) : '…'), make('span', {}, 'events')),
    ...VERDICTS.map((verdict) => make('div', { class: `rate ${verdict}` }, make('b', {}, now ? rate(rates[verdict] || 0) : '…'), make('span', {}, verdict))),
  );
  showHistory();
}

function showHistory() {
  const end = history[history.length - 1].at;
  const points = history.slice(1).map((sample, index) => {
    const rates = between(history[index], sample);
    const all = Object.values(rates).reduce((sum, value) => sum + value, 0);
    return { x: 600 - ((end - sample.at) / HISTORY_S) * 600, all, other: all - (rates.allow || 0) };
  });
  const most = Math.max(0, ...points.map((point) => point.all));
  const area = (pick, kind) => {
    if (points.length < 2 || !most) return [];
    const line = points.map((point) => `${point.x.toFixed(1)},${(90 - (pick(point) / most) * 82).toFixed(1)}`);
    return [draw('polygon', { class: kind, points: `${points[0].x.toFixed(1)},90 ${line.join(' ')} ${points[points.length - 1].x.toFixed(1)},90` })];
  };
  byId('history').replaceChildren(...area((point) => point.all, 'area-allow'), ...area((point) => point.other, 'area-other'));
  byId('history-text').textContent = points.length < 2
    ? 'Events per second: this takes a few seconds to fill.'
    : !most ? 'No event while this page was open, in the last two minutes.' : `Events per second over the last two minutes, ${rate(most)} at most; red: those not allowed.`;
}

// Facts

function list(node, facts) {
  node.replaceChildren(...facts.flatMap(([name, value]) => [make('dt', {}, name), make('dd', {}, value)]));
}

function showAgent(status) {
  const metrics = status.metrics;
  const open = [...by(metrics, 'connections_open', 'protocol')].filter(([, number]) => number);
  const resident = metrics.process_resident_memory_bytes; // macOS does not say
  list(byId('agent'), [
    ['Version', `${status.version}, wasmtime ${status.wasmtime}`],
    ['Up', span(status.uptime_s)],
    ['Connections', open.length ? open.map(([name, number]) => `${count(number)} ${name === 'none' ? 'silent' : name}`).join(', ') : 'none: no proxy is connected'],
    ['Events', `${count([...by(metrics, 'events_total', 'hook').values()].reduce((sum, value) => sum + value, 0))} so far, ${count(single(metrics, 'events_pending'))} under way`],
    ['Instances', `${count(single(metrics, 'instances'))}; ${count(single(metrics, 'instances_created_total'))} made, ${count(single(metrics, 'instances_discarded_total'))} freed`],
    ['Guest memory', bytes(single(metrics, 'guest_memory_bytes'))],
    ['Process', resident ? `${status.pid}, ${bytes(resident)} resident` : status.pid],
  ]);
}

function showModules(status) {
  const node = byId('module');
  if (!status.modules.length) return void list(node, [['File', 'none is loaded yet']]);
  const shadows = (name, result) => count(status.metrics[`${PREFIX}shadow_events_total{result="${result}",module="${name}"}`] || 0);
  list(node, status.modules.flatMap((module) => [
    ...(module.name ? [['Name', `${module.name}${module.is_shadow ? ', a shadow' : ''}: ${module.health}`]] : []),
    ...(module.is_shadow ? [['Compared', `${shadows(module.name, 'same')} the same, ${shadows(module.name, 'different')} different, ${shadows(module.name, 'failed')} failed, ${shadows(module.name, 'dropped')} not asked`]] : []),
    ['File', module.path],
    ['SHA-256', make('code', {}, module.sha256)],
    ['Hooks', make('span', { class: 'lines' }, module.hooks.join('\n'))],
    ['Compiled', module.from_cache ? 'by an earlier start' : 'at this start'],
  ]));
}

function showErrors(status) {
  const errors = [...by(status.metrics, 'errors_total', 'kind')].filter(([, number]) => number);
  if (!errors.length) return void byId('errors').replaceChildren(make('p', { class: 'quiet' }, 'None since the start.'));
  errors.sort((one, other) => other[1] - one[1]);
  byId('errors').replaceChildren(make('dl', {}, ...errors.flatMap(([kind, number]) => {
    const known = status.errors[kind];
    const why = known ? [make('div', { class: 'why' }, known.reason), make('div', { class: 'quiet' }, `last at ${clock(known.time)}`, ...(known.correlation_id ? [', ', finder(known.correlation_id)] : []))] : [];
    return [make('dt', {}, kind), make('dd', {}, make('b', {}, count(number)), ...why)];
  })));
}

// A correlation id that shows its events.
function finder(id) {
  const link = make('a', { href: '#events-title', class: 'id' }, id);
  link.addEventListener('click', () => {
    byId('search').value = id;
    showEvents(0);
  });
  return link;
}

function showWorkers(status) {
  byId('workers-section').hidden = !status.workers.length;
  byId('workers').replaceChildren(make('table', {},
    make('thead', {}, make('tr', {}, ...['Worker', 'Process', 'Connections', ''].map((name) => make('th', { scope: 'col' }, name)))),
    make('tbody', {}, ...status.workers.map((worker) => make('tr', {},
      make('td', {}, String(worker.worker)), make('td', {}, String(worker.pid)), make('td', {}, String(worker.connections)),
      make('td', {}, worker.ready ? worker.health : 'starting'),
    ))),
  ));
}

// Latency

function showLatency() {
  const all = document.querySelector('input[name=span]:checked').value === 'all';
  const now = history[history.length - 1];
  const before = history.find(({ at }) => now.at - at <= RECENT_S + 0.5);
  const of = (name) => {
    const total = buckets(now.metrics, name);
    return all ? total : since(total, buckets(before.metrics, name));
  };
  const kinds = [['event', 'whole event', of('event_duration_seconds')], ['guest', 'guest', of('guest_call_duration_seconds')]];
  const node = byId('latency');
  const text = byId('latency-text');
  const used = kinds.flatMap(([, , parts]) => parts.flatMap((part, index) => (part.count > 0 ? [index] : [])));
  if (!used.length) {
    node.replaceChildren();
    node.style.display = 'none';
    text.textContent = all ? 'No event has come yet.' : 'No event came in the last 10 s.';
    return;
  }
  node.style.display = '';
  const labels = kinds[0][2];
  let from = Math.max(0, Math.min(...used) - 1);
  const to = Math.min(labels.length - 1, Math.max(Math.max(...used) + 1, from + 7));
  from = Math.max(0, Math.min(from, to - 7));
  plot(node, kinds, from, to);
  text.replaceChildren(...kinds.map(([kind, name, parts]) => make('span', {},
    make('i', { class: `key ${kind}` }), `${name}: half within ${quantile(parts, 0.5)}, 99% within ${quantile(parts, 0.99)}`)));
}

function plot(node, kinds, from, to) {
  const width = Math.max(node.clientWidth, 260);
  const height = 224;
  const [left, bottom, top] = [34, 34, 10];
  const room = (width - left - 4) / (to - from + 1);
  const shares = kinds.map(([, , parts]) => {
    const all = parts.reduce((sum, part) => sum + part.count, 0) || 1;
    return parts.map((part) => part.count / all);
  });
  const most = Math.max(...shares.flat(), 0.01);
  const y = (share) => height - bottom - (share / most) * (height - bottom - top);
  const nodes = [];
  for (const part of [0, 0.5, 1]) {
    nodes.push(draw('line', { class: 'grid', x1: left, x2: width, y1: y(part * most), y2: y(part * most) }));
    nodes.push(draw('text', { x: left - 5, y: y(part * most) + 4, 'text-anchor': 'end' }, `${Math.round(part * most * 100)}%`));
  }
  const every = Math.ceil(46 / room);
  for (let index = from; index <= to; index += 1) {
    const x = left + (index - from) * room;
    const bound = kinds[0][2][index].bound;
    const words = bound === Infinity ? 'longer' : duration(bound);
    for (const [which, [kind, name]] of kinds.entries()) {
      const share = shares[which][index];
      if (!share) continue;
      const bar = draw('rect', { class: `bar-${kind}`, x: x + room * (0.1 + which * 0.4), width: room * 0.38, y: y(share), height: Math.max(height - bottom - y(share), 1.5), rx: 1.5 });
      bar.append(draw('title', {}, `${name}, up to ${words}: ${(share * 100).toFixed(1)}%`));
      nodes.push(bar);
    }
    if ((index - from) % every === 0) nodes.push(draw('text', { x: x + room / 2, y: height - bottom + 15, 'text-anchor': 'middle' }, words));
  }
  nodes.push(draw('text', { x: left + (width - left) / 2, y: height - 4, 'text-anchor': 'middle' }, 'took up to'));
  node.setAttribute('viewBox', `0 0 ${width} ${height}`);
  node.replaceChildren(...nodes);
}

// Events

function showHooks(status) {
  const select = byId('hook');
  const known = [...select.options].map((option) => option.value);
  for (const hook of by(status.metrics, 'events_total', 'hook').keys()) {
    if (!known.includes(hook)) select.append(make('option', { value: hook }, hook));
  }
}

function hasFailed(event) {
  return event.tags.some((tag) => FAILED.includes(tag));
}

function matches(event) {
  const wanted = byId('decision').value;
  const hook = byId('hook').value;
  const text = byId('search').value.trim().toLowerCase();
  return (!wanted || (wanted === 'failed' ? hasFailed(event) : event.decision === wanted))
    && (!hook || event.hook === hook)
    && (!text || event.correlation_id.toLowerCase().includes(text));
}

function row(event, isFresh) {
  let node = rows.get(event.number);
  if (!node) {
    const words = [
      ...event.tags.map((tag) => make('span', { class: 'tag' }, tag)),
      ...event.rule_ids.map((rule) => make('span', { class: 'tag' }, `rule ${rule}`)),
      ...(event.reasons.length ? [make('span', hasFailed(event) ? { class: 'why' } : {}, event.reasons.join('; '))] : []),
      ...(event.is_cut ? [make('span', { class: 'quiet' }, 'more than is kept')] : []),
    ];
    node = make('tr', isFresh ? { class: 'fresh' } : {},
      make('td', {}, clock(event.time)),
      make('td', {}, make('span', { class: `verdict ${event.decision}` }, event.status ? `${event.decision} ${event.status}` : event.decision)),
      make('td', { class: 'hook' }, event.hook === 'none' ? 'no hook' : event.hook, event.worker ? make('span', { class: 'quiet' }, ` worker ${event.worker}`) : ''),
      make('td', { class: 'number' }, duration(event.took_us / 1e6)),
      make('td', { class: 'what' }, ...words),
      make('td', { class: 'id' }, event.correlation_id || make('span', { class: 'quiet' }, 'none')),
    );
    rows.set(event.number, node);
  }
  return node;
}

function showEvents(fresh) {
  const found = events.filter(matches);
  const shown = found.slice(0, (IS_NARROW.matches ? 20 : 100) * more);
  const few = fresh < 20;
  byId('events').tBodies[0].replaceChildren(...shown.map((event, index) => row(event, few && index < fresh)));
  const kept = new Set(events.map((event) => event.number));
  for (const number of rows.keys()) if (!kept.has(number)) rows.delete(number);
  const all = `the last ${events.length === 1 ? 'event' : `${count(events.length)} events`}`;
  const part = found.length > shown.length ? `; ${count(shown.length)} of them are shown` : '';
  const text = !events.length ? 'No event has come yet.'
    : !found.length ? `Nothing in ${all} is like this.`
      : found.length === events.length ? `${all[0].toUpperCase()}${all.slice(1)}${part}` : `${count(found.length)} of ${all}${part}`;
  if (byId('shown').textContent !== text) byId('shown').textContent = text;
  byId('events').hidden = !shown.length;
  byId('more').hidden = found.length <= shown.length;
}

// Try a request

function headers(text, what) {
  return text.split('\n').filter((line) => line.trim()).map((line) => {
    const at = line.indexOf(':');
    if (at < 1) throw new Error(`${what}: “${line.trim().slice(0, 60)}” is not “Name: value”`);
    return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
}

async function tryIt(form) {
  const field = (name) => form.elements[name].value;
  const wanted = {
    method: field('method').trim(),
    uri: field('uri').trim(),
    client_ip: field('client_ip').trim(),
    headers: headers(field('headers'), 'Request headers'),
    body: field('body'),
    status: Number(field('status') || 0),
    response_headers: headers(field('response_headers'), 'Response headers'),
  };
  const answer = await fetch('/try', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Token': document.querySelector('meta[name=token]').content },
    body: JSON.stringify(wanted),
  });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function showTried(tried) {
  const node = byId('tried');
  if (tried.error) return void node.replaceChildren(make('p', { class: 'failure' }, tried.error));
  const output = (lines) => (lines.length ? [make('h4', {}, 'The module said'), make('pre', { class: 'said' }, lines.join('\n'))] : []);
  node.replaceChildren(...output(tried.started), ...tried.steps.flatMap((step) => [
    make('h3', {}, `${step.hook} `, make('span', { class: `verdict ${step.decision}` }, step.status ? `${step.decision} ${step.status}` : step.decision)),
    make('p', { class: step.has_failed ? 'failure' : 'quiet' }, step.has_failed ? `The module failed: ${step.reasons.join('; ')}` : step.is_asked
      ? `The guest took ${duration(step.guest_us / 1e6)}.` : 'The module does not export this hook: it was not asked.'),
    ...(step.tags.length ? [make('p', {}, ...step.tags.map((tag) => make('span', { class: 'tag' }, tag)))] : []),
    ...output(step.log),
    make('details', {}, make('summary', {}, 'The answer that a v2 proxy would get'), make('pre', { class: 'answer' }, step.answer)),
  ]));
}

byId('try').addEventListener('submit', async (submitted) => {
  submitted.preventDefault();
  const form = submitted.target;
  const button = form.querySelector('button[type=submit]');
  button.disabled = true;
  byId('trying').textContent = 'Asking the module …';
  try {
    showTried(await tryIt(form));
  } catch (error) {
    showTried({ error: error.message });
  } finally {
    button.disabled = false;
    byId('trying').textContent = '';
  }
});

byId('pause').addEventListener('click', () => {
  paused = !paused;
  byId('pause').textContent = paused ? 'Go on' : 'Pause';
  byId('pause').setAttribute('aria-pressed', String(paused));
  if (paused) clearTimeout(timer);
  else poll();
});
byId('filter').addEventListener('input', () => { more = 1; showEvents(0); });
byId('more').addEventListener('click', () => { more *= 3; showEvents(0); });
IS_NARROW.addEventListener('change', () => { if (history.length) { showEvents(0); showLatency(); } });
byId('filter').addEventListener('submit', (submitted) => submitted.preventDefault());
byId('span').addEventListener('change', () => { if (history.length) showLatency(); });
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else if (!paused) poll(); });
poll();
