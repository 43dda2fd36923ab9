// Lines over time, and bars of ranges, in SVG.
const HUES = 6;

function drawn(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/** The end of an axis for values up to most: four equal steps of it are round numbers. */
function roundUp(most, inBytes) {
  if (inBytes) return 2 ** Math.max(12, Math.ceil(Math.log2(Math.max(1, most))));
  const least = Math.max(most, 0.004);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 4, 8, 10].map((step) => step * power).find((end) => end >= least);
}

function tick(value, inBytes) {
  if (!value) return "0";
  return (inBytes ? size(value) : seconds(value)).replace(/\.(\d*?)0+ /, (_, kept) => (kept ? `.${kept} ` : " "));
}

class Chart {
  /** most: seconds that are shown at most; until there are so many it is less. */
  constructor(svg, most) {
    this.svg = svg;
    this.most = most;
    this.span = 60;
    this.at = null;
    this.onHover = () => {};
    svg.addEventListener("pointermove", (event) => this.hover(event.clientX - svg.getBoundingClientRect().left));
    svg.addEventListener("pointerleave", () => this.hover(null));
  }

  hover(x) {
    this.at = x;
    this.onHover();
  }

  /** The time that the pointer is at, or null. */
  hovered(now) {
    if (this.at === null || !this.scale) return null;
    const { left, right } = this.scale;
    if (this.at < left || this.at > right) return null;
    return now - this.span * (1 - (this.at - left) / (right - left));
  }

  /** series: [{hue, samples: [[time, value or null]], ended}], limit: in the unit of the values, or null. */
  draw(series, now, inBytes, limit) {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width) return;
    const left = 58, right = width - 10, top = 10, bottom = height - 22;
    this.scale = { left, right };
    const oldest = Math.min(now, ...series.map(({ samples }) => samples[0]?.[0] ?? now));
    this.span = Math.min(this.most, Math.max(60, Math.ceil((now - oldest) / 30) * 30));
    const begin = now - this.span;
    const values = series.flatMap(({ samples }) => samples.filter(([time]) => time >= begin).map(([, value]) => value ?? 0));
    const end = roundUp(Math.max(0, ...values), inBytes);
    const x = (time) => left + ((right - left) * (time - begin)) / this.span;
    const y = (value) => bottom - ((bottom - top) * value) / end;
    const parts = [];
    for (let step = 0; step <= 4; step += 1) {
      const value = (end * step) / 4;
      parts.push(drawn("path", { class: step ? "grid" : "axis", d: `M${left} ${y(value)}H${right}` }));
      parts.push(drawn("text", { x: left - 8, y: y(value) + 4, class: "from" }, tick(value, inBytes)));
    }
    const apart = this.span <= 120 ? 15 : 60;
    const spare = (apart * (right - left)) / this.span < 64 ? 2 : 1;
    for (let past = 0; past <= this.span; past += apart * spare) {
      const place = x(now - past);
      parts.push(drawn("path", { class: "axis", d: `M${place} ${bottom}v4` }));
      const anchor = past === 0 ? "from" : past === this.span ? "to" : "mid";
      const words = past % 60 ? `−${past} s` : `−${past / 60} min`;
      parts.push(drawn("text", { x: place, y: bottom + 17, class: anchor }, past ? words : "now"));
    }
    if (limit !== null && limit <= end) {
      parts.push(drawn("path", { class: "limit", d: `M${left} ${y(limit)}H${right}` }));
    }
    for (const { hue, samples, ended } of series) parts.push(...this.line(samples, begin, x, y, hue, ended));
    const at = this.hovered(now);
    if (at !== null) parts.push(drawn("path", { class: "cursor", d: `M${x(at)} ${top}V${bottom}` }));
    this.svg.replaceChildren(...parts);
  }

  line(samples, begin, x, y, hue, ended) {
    let path = "", before = -Infinity, last = null;
    for (const [time, value] of samples) {
      if (time < begin || value === null) continue;
      last = [x(time).toFixed(1), y(value).toFixed(1)];
      path += `${time - before > 15 ? "M" : "L"}${last[0]} ${last[1]}`;
      before = time;
    }
    if (last === null) return [];
    const parts = [drawn("path", { class: `line hue${hue}`, d: path })];
    if (ended) parts.push(drawn("path", { class: "ended", d: `M${last[0]} ${last[1]}m-4-4 8 8m0-8-8 8` }));
    return parts;
  }
}

/** The value of a line at a time: the last one before it. */
function valueAt(samples, time) {
  let found = null;
  for (const [when, value] of samples) {
    if (when > time) break;
    found = value;
  }
  return found;
}

/** Draw what is held and what is missing of a timeline, on the scale of all of them. */
function drawBar(svg, timeline, first, last) {
  const scale = 1000 / Math.max(1, last - first);
  const rect = (kind) => ({ start_lsn, end_lsn }) => {
    const start = position(start_lsn);
    const width = Math.max(4, (position(end_lsn) - start) * scale);
    return drawn("rect", { class: kind, x: Math.min(996, (start - first) * scale), y: 0, width, height: 10 });
  };
  svg.replaceChildren(...timeline.ranges.map(rect("held")), ...timeline.gaps.map(rect("gap")));
}
