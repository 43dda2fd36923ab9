// Keeps the page as the server is.  Whatever comes from there is text: nothing here writes markup.
const KEPT = 300; // seconds of the chart, and for which those who have left are remembered
const MOST_LEFT = 50; // of those who have left: the others come and go without end
const FAN = 10; // standbys in the picture, those first that are not well; the table has them all
const GAPS = 3; // named in words; the bar has them all
const SILENCE = 15000; // ms without news after which what is shown is called old
const mostLag = Number(document.body.dataset.lagLimit);
const facts = new Map(Array.from(document.querySelectorAll("[data-fact]"), (node) => [node.dataset.fact, node]));
const chart = new Chart(document.getElementById("chart"), KEPT);
const upstreamLine = { name: "from upstream", samples: [], hue: 0, gone: null };
const standbys = new Map(); // by pid and start: {name, key, standby, gone, samples, hue, kind}
const shown = new Map(); // by list: its rows by what they are of
const pace = []; // [time, position, sent]
let latest = null, heardAt = 0, isLive = null;

const element = (id) => document.getElementById(id);

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function fact(name, text) {
  const node = facts.get(name);
  if (node) setText(node, text);
}

function markAs(node, kind) {
  if (node.className !== kind) node.className = kind;
  const href = `#mark-${kind}`, use = node.querySelector("use");
  if (use && use.getAttribute("href") !== href) use.setAttribute("href", href);
}

/** Make the rows of a list those of items: [{id, kind, texts, then}], each a copy of the pattern that is in it. */
function show(list, items) {
  const pattern = list.querySelector("template");
  // At first the server's own rows are in it, which nobody can tell apart.
  if (!shown.has(list)) list.replaceChildren(pattern);
  const before = shown.get(list) ?? new Map(), rows = new Map();
  shown.set(list, rows);
  let previous = pattern;
  for (const { id, kind, texts, then } of items) {
    const row = before.get(id) ?? pattern.content.firstElementChild.cloneNode(true);
    before.delete(id);
    rows.set(id, row);
    for (const node of row.querySelectorAll("[data-f]")) setText(node, texts[node.dataset.f] ?? "");
    if (kind !== undefined) markAs(row, kind);
    if (then) then(row);
    if (previous.nextElementSibling !== row) previous.after(row);
    previous = row;
  }
  for (const row of before.values()) row.remove();
}

function clientOf({ client_addr: host, client_port: port }) {
  if (!host) return "[local]";
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

const reached = (standby) => standby.replay_lsn ?? standby.write_lsn ?? standby.sent_lsn;

/** As condition() in walsender/status/page.py, and that somebody has left. */
function conditionOf({ standby, gone }, now) {
  if (gone !== null) return ["bad", `disconnected ${age(now - gone)} ago`];
  if ((standby.lag_bytes ?? 0) > mostLag) return ["bad", `${size(standby.lag_bytes)} behind`];
  if (standby.state === "streaming") return ["ok", "streaming"];
  return [standby.state === "catchup" ? "warn" : "bad", standby.state];
}

function remember(about) {
  const now = about.now, present = new Set(), complete = about.standbys.length === about.standby_count;
  for (const standby of about.standbys) {
    const id = `${standby.pid}:${standby.backend_start}`;
    const key = JSON.stringify([standby.application_name, standby.client_addr]);
    let one = standbys.get(id);
    if (!one) {
      // Who comes back goes on where he was.
      const [oldId, old] = [...standbys].find(([, other]) => other.gone !== null && other.key === key) ?? [];
      standbys.delete(oldId);
      one = old ?? { key, name: standby.application_name || "(no name)", samples: [], hue: null, kind: "ok" };
      standbys.set(id, one);
    }
    Object.assign(one, { standby, gone: null });
    const delay = standby.replay_lsn ? standby.replay_lag : standby.write_lag;
    one.samples.push([now, standby.lag_bytes, delay]);
    present.add(id);
  }
  for (const [id, one] of standbys) {
    if (present.has(id)) continue;
    one.gone ??= now;
    one.standby = { ...one.standby, lag_bytes: behind(one.standby, about) };
    if (!complete || now - one.gone > KEPT) standbys.delete(id);
  }
  const left = [...standbys].filter(([, { gone }]) => gone !== null).sort(([, a], [, b]) => b.gone - a.gone);
  for (const [id] of left.slice(MOST_LEFT)) standbys.delete(id);
  if (about.upstream) upstreamLine.samples.push([now, about.upstream.lag_bytes, null]);
  for (const { samples } of [upstreamLine, ...standbys.values()]) {
    while (samples.length && samples[0][0] < now - KEPT - 5) samples.shift();
  }
}

function behind(standby, about) {
  const lsn = reached(standby);
  return lsn ? Math.max(0, position(about.flush_lsn) - position(lsn)) : null;
}

function showStandbys(about) {
  const now = about.now, news = [];
  const all = [...standbys].map(([id, one]) => {
    const [kind, words] = conditionOf(one, now);
    if (kind !== one.kind && (kind === "bad" || one.kind === "bad")) news.push(`${one.name}: ${words}`);
    one.kind = kind;
    const { standby } = one, lsns = {};
    for (const name of ["sent_lsn", "write_lsn", "flush_lsn", "replay_lsn"]) lsns[name] = standby[name] ?? NONE;
    const texts = {
      ...lsns,
      condition: words,
      application_name: one.name,
      usename: standby.usename,
      client: clientOf(standby),
      reached: reached(standby) ?? NONE,
      lag: size(standby.lag_bytes),
      delay: one.gone === null ? seconds(standby.replay_lsn ? standby.replay_lag : standby.write_lag) : NONE,
      sent: size(standby.sent_bytes),
      since: one.gone === null ? age(now - standby.backend_start) : NONE,
    };
    return { id, kind, texts, standby };
  });
  const order = ({ standby: a }, { standby: b }) =>
    a.application_name === b.application_name ? a.pid - b.pid : a.application_name < b.application_name ? -1 : 1;
  all.sort(order);
  show(element("standby-rows"), all);
  const first = ["bad", "warn", "ok"].flatMap((kind) => all.filter((one) => one.kind === kind)).slice(0, FAN);
  show(element("fan"), all.filter((one) => first.includes(one)));
  const others = Math.max(all.length, about.standby_count) - first.length;
  setText(element("others"), others > 0 ? `and ${others} more` : "");
  const bad = all.filter(({ kind }) => kind === "bad").length;
  const title = bad ? `(${bad}) walsender` : "walsender";
  if (document.title !== title) document.title = title;
  fact("standby_count", `${about.standby_count} of ${about.max_wal_senders}${bad ? `, ${bad} stopped or behind` : ""}`);
  if (news.length) setText(element("news"), news.join("; "));
}

function showUpstream({ role, upstream, not_receiving: lost, now }) {
  const missing = role === "relay" && !upstream;
  markAs(element("upstream").querySelector(".condition"), `condition ${missing ? "bad" : "ok"}`);
  element("upstream").querySelector("use").setAttribute("href", missing ? "#mark-bad" : "#mark-ok");
  document.body.classList.toggle("cut-off", missing);
  const since = lost ? ` for ${age(now - lost.since)}` : "";
  fact("upstream_state", role !== "relay" ? "a directory of WAL" : missing ? `nothing received${since}` : "streaming");
  fact("upstream_error", missing ? (lost?.error ?? "") : "");
  if (upstream) {
    fact("upstream_address", clientOf({ client_addr: upstream.host, client_port: upstream.port }));
    fact("upstream_lsn", upstream.latest_end_lsn);
    fact("upstream_slot", upstream.slot_name ?? NONE);
  }
  fact("upstream_lag", upstream ? size(upstream.lag_bytes) : NONE);
}

function showPace({ flush_lsn, sent_bytes, now }) {
  pace.push([now, position(flush_lsn), sent_bytes]);
  if (pace.length > 6) pace.shift();
  const [then, from, sent] = pace[0], passed = now - then;
  fact("receives", passed > 0 ? `${size(Math.max(0, position(flush_lsn) - from) / passed)}/s` : NONE);
  fact("sends", passed > 0 ? `${size(Math.max(0, sent_bytes - sent) / passed)}/s` : NONE);
}

function showSlots({ slots, slot_count, standbys: present }) {
  const names = new Map(present.map(({ pid, application_name }) => [pid, application_name]));
  const items = slots.map((slot) => {
    const lost = slot.wal_status === "lost", active = slot.active_pid !== null;
    const texts = {
      slot_name: slot.slot_name,
      active: active ? names.get(slot.active_pid) || "active" : "inactive",
      wal_status: slot.wal_status ?? NONE,
      restart_lsn: slot.restart_lsn ?? NONE,
      retained: size(slot.retained_bytes),
      safe: size(slot.safe_wal_size),
    };
    return { id: slot.slot_name, kind: lost ? "bad" : active ? "ok" : "warn", texts };
  });
  items.sort((a, b) => (a.id < b.id ? -1 : 1));
  show(element("slot-rows"), items);
  fact("slot_count", String(slot_count));
}

/** As _gaps() in walsender/status/page.py: the newest of them. */
function wordGaps(gaps) {
  const newest = gaps.slice(-GAPS).map(({ start_lsn, end_lsn }) => `${start_lsn} to ${end_lsn}`);
  const others = gaps.length - newest.length;
  return [...(others ? [`${others} more`] : []), ...newest].join(", ") || "no gap";
}

function showTimelines({ timelines, segment_size, flush_lsn, timeline: current }) {
  if (!timelines.length) return;
  const first = Math.min(...timelines.map(({ ranges }) => position(ranges[0].start_lsn)));
  const last = Math.max(...timelines.map(({ ranges }) => position(ranges.at(-1).end_lsn)));
  const items = timelines.map((one) => {
    const { timeline, parent, switchpoint, ranges, gaps, segments, missing } = one;
    const texts = {
      timeline: String(timeline),
      origin: parent ? `from ${parent} at ${switchpoint}` : "",
      start: ranges[0].start_lsn,
      end: timeline === current ? flush_lsn : ranges.at(-1).end_lsn,
      held: size(segments * segment_size),
      gaps: wordGaps(gaps),
    };
    const then = (row) => drawBar(row.querySelector(".bar"), one, first, last);
    return { id: timeline, kind: missing ? "bad" : "ok", texts, then };
  });
  show(element("timeline-rows"), items.reverse());
  const held = timelines.reduce((sum, { segments }) => sum + segments, 0);
  fact("held", `${size(held * segment_size)} in ${held} segments`);
}

function showChart() {
  if (!latest?.standbys || document.hidden) return;
  const inBytes = document.querySelector("[name=unit]:checked").value === "bytes", column = inBytes ? 1 : 2;
  const most = ({ samples }) => Math.max(0, ...samples.map((sample) => sample[column] ?? 0));
  const ranked = [...standbys.values()].sort((a, b) => most(b) - most(a)).slice(0, HUES);
  const free = new Set(Array.from({ length: HUES }, (_, number) => number + 1));
  for (const one of standbys.values()) {
    if (!ranked.includes(one)) one.hue = null;
    else if (one.hue !== null) free.delete(one.hue);
  }
  for (const one of ranked) {
    if (one.hue === null) free.delete((one.hue = Math.min(...free)));
  }
  ranked.sort((a, b) => a.hue - b.hue);
  const lines = inBytes && upstreamLine.samples.length ? [upstreamLine, ...ranked] : ranked;
  const series = lines.map(({ hue, samples, gone }) => ({
    hue,
    ended: gone !== null,
    samples: samples.map((sample) => [sample[0], sample[column]]),
  }));
  chart.draw(series, latest.now, inBytes, inBytes ? mostLag : null);
  const at = chart.hovered(latest.now) ?? latest.now;
  const items = lines.map(({ name, hue, gone }, number) => {
    const value = gone !== null && at >= gone ? null : valueAt(series[number].samples, at);
    return { id: hue, kind: `hue${hue}`, texts: { name, value: inBytes ? size(value) : seconds(value) } };
  });
  show(element("legend"), items);
}

function update(about) {
  const first = latest === null;
  latest = about;
  heardAt = Date.now();
  fact("role", about.role);
  fact("uptime", age(about.now - about.started_at));
  fact("read_at", moment(about.now));
  fact("sent_bytes", size(about.sent_bytes));
  setLive(true, about.state === "starting" ? "starting: there is no WAL to serve yet" : "live");
  showUpstream(about);
  if (!about.standbys) return;
  for (const name of ["system_identifier", "timeline", "flush_lsn"]) fact(name, String(about[name]));
  remember(about);
  if (first) for (const one of standbys.values()) [one.kind] = conditionOf(one, about.now);
  showPace(about);
  showStandbys(about);
  showSlots(about);
  showTimelines(about);
  showChart();
}

function setLive(live, words) {
  isLive = live;
  document.body.classList.toggle("stale", !live);
  fact("live", words);
}

function lost() {
  if (isLive !== false) setLive(false, latest ? `no connection: this is from ${moment(latest.now)}` : "connecting");
}

function listen() {
  const source = new EventSource("events");
  source.onmessage = ({ data }) => update(JSON.parse(data));
  source.onerror = () => {
    lost();
    // A browser comes back by itself after what the network does, not after a refusal.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

document.body.classList.add("scripting");
document.querySelectorAll("[name=unit]").forEach((input) => input.addEventListener("change", showChart));
chart.onHover = showChart;
new ResizeObserver(showChart).observe(element("chart"));
document.addEventListener("visibilitychange", showChart);
setInterval(() => Date.now() - heardAt > SILENCE && lost(), 1000);
lost();
listen();
