// The projection's page: sliders, tables and curves over closed_form.js. State lies in the address.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const AXIS_NAMES = { sites: "sites", sync_every: "sync period", replication: "replication", rank: "rank" };
const RATES = Array.from({ length: 181 }, (_, i) => 10 ** (5 + i / 20)); // bit/s, for the least that suffices
const BASE = { rate: DATA.rate, rtt: DATA.rtt, sites: DATA.sites, sync_every: null, replication: null, rank: null, mtbf: 1, hidden: [] };
const SLOWER = DATA.variants.some((variant) => variant.busy < 1), FAILING = DATA.variants.some((variant) => variant.failing);
let state = { ...BASE };

const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const colour = (method) => (dark() ? method.dark : method.light);
const rateText = (rate) => (rate >= 1e9 ? `${digits(rate / 1e9)} Gbit/s` : `${digits(rate / 1e6)} Mbit/s`);

// The method's variant at the sliders; of those that it can have the nearest.
function variantOf(label, at = state) {
  let best = null, least = Infinity;
  for (const variant of DATA.variants) {
    if (variant.label !== label) continue;
    let off = Math.abs(Math.log(variant.at.sites / at.sites)) * 100;
    for (const axis of ["sync_every", "replication", "rank"]) {
      const own = variant.own.includes(axis), value = variant.at[axis];
      if (value === null) continue;
      off += at[axis] === null ? (own ? 0 : 10) : Math.abs(Math.log(value / at[axis])) + (value === at[axis] && own ? 1e-9 : 0);
    }
    if (off < least) (least = off), (best = variant);
  }
  return best;
}

// Seconds: compute of the mean site, waiting for slower sites, exposed communication, failures.
function evaluate(variant, rate, rtt, faster = 1) {
  const link = DATA.link, goodput = link.goodput * Math.min(rate, variant.widest ?? Infinity);
  const times = closedForm(unfolded(variant.load), {
    step: variant.step / faster,
    backward: variant.backward,
    goodput,
    hop: rtt / 2 + link.message,
    transfer: link.transfer,
    byte: link.byte + variant.inside,
  });
  const compute = times.compute * variant.busy;
  const found = { compute, waiting: times.compute - compute, communication: times.communication, failures: 0 };
  if (variant.failing) found.failures = failing(variant.failing, total(found), goodput);
  return found;
}

const total = (times) => times.compute + times.waiting + times.communication + times.failures;

// As harness/costmodel/sites/failure_overhead.py; a slider multiplies the time between failures.
function failing(at, seconds, goodput) {
  const absent = seconds / at.rounds + at.restart + at.state / goodput;
  let sites = 0, part = 0, waits = 0, often = 0;
  for (const [count, needed, given] of at.groups) {
    const mtbf = given * state.mtbf;
    sites += count;
    part += needed + (count - needed) / (1 + absent / mtbf);
    waits += ((count - needed) / mtbf) * at.detection;
    often += needed / mtbf;
  }
  return seconds * ((sites / part) * (1 + waits) + (often ? rollback(at, 1 / often) : 1) - 2);
}

function rollback(at, mtbf) {
  const half = at.checkpoint / (2 * mtbf);
  let interval = at.interval;
  if (interval === null) {
    if (at.checkpoint === 0) interval = mtbf / 1000;
    else if (half >= 1) interval = mtbf;
    else interval = Math.sqrt(2 * at.checkpoint * mtbf) * (1 + Math.sqrt(half) / 3 + half / 9) - at.checkpoint;
  }
  return (mtbf * Math.exp((at.restart + at.detection) / mtbf) * Math.expm1((interval + at.checkpoint) / mtbf)) / interval;
}

function pointRow(method) {
  const variant = variantOf(method.label), { rate, rtt } = state, off = DATA.off;
  const times = evaluate(variant, rate, rtt), seconds = total(times);
  const low = total(evaluate(variant, rate * (1 + off.rate), rtt, 1 + off.compute));
  const high = total(evaluate(variant, rate * (1 - off.rate), rtt, 1 / (1 + off.compute)));
  const hours = ((variant.at.sites === DATA.sites ? DATA.devices : (variant.at.sites * DATA.devices) / DATA.sites) * seconds) / 3600;
  const cost = DATA.deviceHour === null ? null : hours * DATA.deviceHour + ((DATA.gigabyteSent || 0) * variant.at.sites * variant.bytes) / 1e9;
  const equal = variant.factor === null ? null : (seconds / variant.tokens) * DATA.quality * variant.factor;
  return { method, variant, ...times, seconds, low, high, utilisation: times.compute / seconds, cost, equal };
}

const shown = () => DATA.methods.filter((method) => !state.hidden.includes(method.label));
const csv = {};

function fill(name, heads, rows, swatches = []) {
  const table = document.getElementById(`table-${name}`);
  const head = element("tr"), body = element("tbody");
  heads.forEach(([text, numeric]) => head.append(element("th", text, { scope: "col", ...(numeric ? { class: "n" } : {}) })));
  rows.forEach((row, r) => {
    const line = element("tr");
    row.forEach((value, c) => {
      const cell = element(c ? "td" : "th", value.text ?? value, c ? (heads[c][1] ? { class: "n" } : {}) : { scope: "row" });
      if (!c && swatches[r]) cell.prepend(element("span", "", { class: "swatch", style: `background:${swatches[r]}` }));
      if (value.colour) cell.style.boxShadow = `inset 0 -4px ${value.colour}`;
      line.append(cell);
    });
    body.append(line);
  });
  const top = element("thead");
  top.append(head);
  table.replaceChildren(top, body);
  saveAs(name, [heads.map(([text]) => text), ...rows.map((row) => row.map((value) => value.raw ?? value.text ?? value))]);
}

function saveAs(name, lines) {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  csv[name] = lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  const link = document.querySelector(`[data-csv="${name}"]`);
  link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(csv[name])}`;
  link.download = `${DATA.name}-${name}.csv`;
}

function options(variant) {
  const parts = ["sites", "sync_every", "replication", "rank"].filter((axis) => variant.at[axis] !== null);
  return parts.map((axis) => `${AXIS_NAMES[axis]} ${variant.at[axis]}`).join(", ");
}

function drawPoint(rows) {
  const heads = [["method"], ["at"], ["total (h)", 1], ["band (h)", 1], ["compute utilisation", 1], ["exposed (h)", 1], ...(SLOWER ? [["waiting for sites (h)", 1]] : []), ...(FAILING ? [["failures (h)", 1]] : []), ["bytes per worker", 1], ["memory of a site", 1], ["fits"], ...(DATA.quality ? [["to the reference's loss (h)", 1]] : []), ...(DATA.deviceHour === null ? [] : [["cost (US$)", 1]])];
  fill("point", heads, rows.map((row) => [
    row.method.label, options(row.variant), { text: digits(row.seconds / 3600, 4), raw: row.seconds / 3600 },
    `${digits(row.low / 3600)} – ${digits(row.high / 3600)}`, { text: `${(100 * row.utilisation).toFixed(1)} %`, raw: row.utilisation },
    { text: digits(row.communication / 3600), raw: row.communication / 3600 },
    ...(SLOWER ? [{ text: digits(row.waiting / 3600), raw: row.waiting / 3600 }] : []), ...(FAILING ? [{ text: digits(row.failures / 3600), raw: row.failures / 3600 }] : []),
    { text: show(row.variant.bytes, "B"), raw: row.variant.bytes },
    { text: show(row.variant.memory, "B"), raw: row.variant.memory }, row.variant.fits ? "yes" : "no",
    ...(DATA.quality ? [row.equal === null ? "–" : { text: digits(row.equal / 3600), raw: row.equal / 3600 }] : []),
    ...(row.cost === null ? [] : [{ text: digits(row.cost), raw: row.cost }]),
  ]), rows.map((row) => colour(row.method)));
  const fastest = rows.reduce((a, b) => (a.seconds / a.variant.tokens <= b.seconds / b.variant.tokens ? a : b), rows[0]);
  document.getElementById("spoken").textContent = fastest ? `Least time per token: ${fastest.method.label}` : "";
}

function chart(name, lines, { label, log, top }) {
  const width = 520, height = 300, left = 52, right = 10, bottom = 42, head = 8;
  const xs = lines.flatMap((line) => line.x), ys = lines.flatMap((line) => line.y);
  const [x0, x1] = [Math.log10(Math.min(...xs)), Math.log10(Math.max(...xs))];
  const [y0, y1] = log ? [Math.log10(Math.min(...ys)), Math.log10(Math.max(...ys)) + 0.02] : [0, top];
  const px = (x) => left + ((Math.log10(x) - x0) / (x1 - x0 || 1)) * (width - left - right);
  const py = (y) => height - bottom - (((log ? Math.log10(y) : y) - y0) / (y1 - y0 || 1)) * (height - bottom - head);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${label} against the access rate; the numbers are in the CSV`);
  const add = (kind, attributes, text) => {
    const made = document.createElementNS(SVG, kind);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    svg.append(made);
    return made;
  };
  for (let decade = Math.ceil(x0 - 1e-9); decade <= x1 + 1e-9; decade += 1) {
    add("line", { class: "grid", x1: px(10 ** decade), x2: px(10 ** decade), y1: head, y2: height - bottom });
    add("text", { x: px(10 ** decade), y: height - bottom + 16, "text-anchor": "middle" }, String(Number((10 ** (decade - 9)).toPrecision(3))));
  }
  const marks = log ? [] : [0, 0.25, 0.5, 0.75, 1];
  for (let decade = Math.floor(y0); log && decade <= y1; decade += 1) for (const by of y1 - y0 < 2 ? [1, 2, 5] : [1]) marks.push(by * 10 ** decade);
  for (const mark of marks) {
    const y = py(mark);
    if (y < head - 1 || y > height - bottom + 1) continue;
    add("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y });
    add("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, String(Number(mark.toPrecision(3))));
  }
  if (px(state.rate) >= left) add("line", { class: "now", x1: px(state.rate), x2: px(state.rate), y1: head, y2: height - bottom });
  for (const line of lines) {
    const path = line.x.map((x, i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(line.y[i]).toFixed(1)}`).join("");
    const made = add("path", { d: path, fill: "none", stroke: colour(line.method), "stroke-width": 2 });
    made.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: line.method.label }));
  }
  add("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "access rate (Gbit/s)");
  add("text", { x: -(head + height - bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle" }, label);
  document.getElementById(`chart-${name}`).replaceChildren(svg);
}

function curveRates() {
  const low = Math.log10(Math.min(...DATA.rates, state.rate)), high = Math.log10(Math.max(...DATA.rates, state.rate));
  return Array.from({ length: 41 }, (_, i) => 10 ** (low + ((high - low || 1) * i) / 40));
}

function drawCurves() {
  const rates = curveRates();
  const lines = shown().map((method) => {
    const variant = variantOf(method.label);
    const times = rates.map((rate) => evaluate(variant, rate, state.rtt));
    return { method, x: rates, hours: times.map((t) => total(t) / 3600), utilisation: times.map((t) => t.compute / total(t)) };
  });
  if (!lines.length) return;
  chart("hours", lines.map((line) => ({ ...line, y: line.hours })), { label: "time for the tokens (h)", log: true });
  chart("utilisation", lines.map((line) => ({ ...line, y: line.utilisation })), { label: "compute utilisation", top: 1.02 });
  saveAs("curves", [["method", "rate_gbit", "hours", "compute_utilisation"], ...lines.flatMap((line) => rates.map((rate, i) => [line.method.label, rate / 1e9, line.hours[i], line.utilisation[i]]))]);
}

function drawMap() {
  const methods = shown().map((method) => ({ method, variant: variantOf(method.label) }));
  if (!methods.length) return;
  const fitting = methods.filter((one) => one.variant.fits);
  const among = fitting.length ? fitting : methods;
  const rows = [...DATA.rtts].reverse().map((rtt) => [
    `${digits(1e3 * rtt)} ms`,
    ...DATA.rates.map((rate) => {
      const each = among.map(({ method, variant }) => ({ method, value: total(evaluate(variant, rate, rtt)) / variant.tokens }));
      const best = each.reduce((a, b) => (b.value < a.value ? b : a));
      return { text: best.method.label, colour: colour(best.method) };
    }),
  ]);
  fill("map", [["RTT"], ...DATA.rates.map((rate) => [rateText(rate)])], rows);
}

function drawBandwidth() {
  const rows = shown().map((method) => {
    const variant = variantOf(method.label), known = new Map();
    const reached = (i) => {
      if (!known.has(i)) {
        const times = evaluate(variant, RATES[i], state.rtt);
        known.set(i, times.compute / total(times));
      }
      return known.get(i);
    };
    return [method.label, ...DATA.targets.map((target) => {
      let low = 0, high = RATES.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (reached(middle) >= target) high = middle;
        else low = middle + 1;
      }
      return low < RATES.length ? { text: digits(RATES[low] / 1e9), raw: RATES[low] / 1e9 } : "–";
    })];
  });
  fill("bandwidth", [["method"], ...DATA.targets.map((target) => [`${Number((100 * target).toPrecision(4))} %`, 1])], rows, shown().map(colour));
}

let waiting = 0;
function draw() {
  drawPoint(shown().map(pointRow));
  drawCurves();
  clearTimeout(waiting);
  waiting = setTimeout(() => (drawMap(), drawBandwidth()), 150);
}

function remember() {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (JSON.stringify(value) === JSON.stringify(BASE[key])) continue;
    if (key === "hidden") value.forEach((label) => parts.append("hidden", label));
    else parts.set(key, String(value));
  }
  history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname + location.search);
}

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  state = { ...BASE, hidden: parts.getAll("hidden").filter((label) => DATA.methods.some((method) => method.label === label)) };
  for (const key of ["rate", "rtt", "mtbf", "sites", "sync_every", "replication", "rank"]) {
    const value = Number(parts.get(key));
    const allowed = ["rate", "rtt", "mtbf"].includes(key) ? value > 0 : DATA.axes[key].includes(value);
    if (parts.has(key) && Number.isFinite(value) && allowed) state[key] = value;
  }
}

// Sliders: rate and RTT on a logarithmic scale, the other axes by the values that the scenario sweeps.
const SLIDERS = [
  { key: "rate", name: "access rate", least: 6, most: 13, show: rateText },
  { key: "rtt", name: "RTT", least: -4, most: 0, show: (rtt) => `${digits(1e3 * rtt)} ms` },
  ...(FAILING ? [{ key: "mtbf", name: "time between failures", least: -2, most: 2, show: (by) => (by === 1 ? "as in the scenario" : `× ${digits(by)}`) }] : []),
  ...Object.keys(AXIS_NAMES).filter((key) => DATA.axes[key].length > (key === "sites" ? 1 : 0)).map((key) => ({ key, name: AXIS_NAMES[key], values: key === "sites" ? DATA.axes.sites : [null, ...DATA.axes[key]], show: (value) => (value === null ? "as in the scenario" : String(value)) })),
];

function build() {
  const form = document.getElementById("sliders");
  for (const slider of SLIDERS) {
    const label = element("label", slider.name);
    const input = element("input", undefined, { type: "range", name: slider.key, "aria-label": slider.name });
    Object.assign(input, slider.values ? { min: 0, max: slider.values.length - 1, step: 1 } : { min: slider.least, max: slider.most, step: 0.01 });
    const output = element("output");
    input.addEventListener("input", () => {
      state[slider.key] = slider.values ? slider.values[Number(input.value)] : Number((10 ** Number(input.value)).toPrecision(3));
      output.textContent = slider.show(state[slider.key]);
      input.setAttribute("aria-valuetext", output.textContent);
      remember();
      draw();
    });
    label.append(input, output);
    form.append(label);
    slider.set = () => {
      input.value = slider.values ? slider.values.indexOf(state[slider.key]) : Math.log10(state[slider.key] || 1e-4);
      output.textContent = slider.show(state[slider.key]);
      input.setAttribute("aria-valuetext", output.textContent);
    };
  }
  const legend = document.getElementById("legend");
  for (const method of DATA.methods) {
    const button = element("button", undefined, { type: "button" });
    button.append(element("span", "", { class: "swatch", style: `background:${colour(method)}` }), method.label);
    button.addEventListener("click", () => {
      const hidden = state.hidden.includes(method.label);
      state.hidden = hidden ? state.hidden.filter((label) => label !== method.label) : [...state.hidden, method.label];
      remember();
      refresh();
    });
    method.button = button;
    legend.append(button);
  }
  document.getElementById("reset").addEventListener("click", () => {
    state = { ...BASE, hidden: [] };
    remember();
    refresh();
  });
  addEventListener("hashchange", () => (recall(), refresh()));
}

function refresh() {
  SLIDERS.forEach((slider) => slider.set());
  DATA.methods.forEach((method) => method.button.setAttribute("aria-pressed", String(!state.hidden.includes(method.label))));
  draw();
}

document.documentElement.classList.add("js");
build();
recall();
refresh();
