// One chart: uPlot with a legend, values under the pointer or the arrow keys, zoom, and the page's colours.
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

function colourOf(method) {
  return isDark() ? method.dark : method.light;
}

// Marks at 1, 2 and 5 alone on a logarithmic axis; all of them where it spans less than half a decade.
function logMarks(chart, splits) {
  const wide = splits.length > 8;
  return splits.map((value) => (!wide || [1, 2, 5].includes(Number(value.toExponential(6).split("e")[0])) ? value : null));
}

class Chart {
  // spec(): {x: {values, label, scale, log, reversed}, y: {label, log, zero}, curves: [{method, values, width, fill?}], rule, ends, words(x), nothing}
  // nothing: what stands in place of a chart without a value
  constructor(box, study, hidden, spec) {
    Object.assign(this, { box, study, hidden, spec, plot: null });
    box.hidden = false;
    this.canvas = box.querySelector(".canvas");
    this.tip = box.querySelector(".tip");
    this.spoken = box.querySelector(".spoken");
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => (this.tip.hidden = true));
    for (const button of box.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => this.zoom(Number(button.dataset.zoom)));
    new ResizeObserver(() => this.plot && this.plot.width !== this.size().width && this.plot.setSize(this.size())).observe(this.canvas);
  }

  size() {
    return { width: Math.max(200, this.canvas.clientWidth), height: this.canvas.clientWidth < 500 ? 260 : 340 };
  }

  draw() {
    this.plot?.destroy();
    const shown = (this.shown = this.spec());
    const nothing = !shown.curves.some((curve) => curve.values.some((value) => value !== null && value !== undefined));
    this.box.classList.toggle("empty", nothing);
    const words = this.box.querySelector(".nothing");
    [words.hidden, words.textContent] = [!nothing, nothing ? shown.nothing : ""];
    const axis = (side, scale) => ({
      stroke: ink("--ink"),
      grid: { stroke: ink("--rule"), width: 1 },
      ticks: { stroke: ink("--rule"), width: 1 },
      font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif",
      label: side.label,
      labelSize: 20,
      values: (_, splits) => splits.map((value) => (value === null ? "" : String(Number((value / (side.scale?.factor ?? 1)).toPrecision(6))))),
      ...(side.log ? { filter: logMarks } : {}),
      scale,
    });
    const range = (side) => (_, low, high) => {
      if (low === null) return [0.5, 1.5];
      if (side.log) return [low / 1.03, high * 1.03];
      const margin = (high - low || 1) * 0.04;
      return [side.zero ? 0 : low - margin, high + margin];
    };
    const options = {
      ...this.size(),
      legend: { show: false },
      scales: {
        x: { time: false, distr: shown.x.log ? 3 : 1, dir: shown.x.reversed ? -1 : 1, range: shown.x.log ? undefined : (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
        y: { distr: shown.y.log ? 3 : 1, range: range(shown.y) },
      },
      axes: [{ ...axis(shown.x, "x"), size: 38 }, { ...axis(shown.y, "y"), size: 46 }],
      cursor: { drag: { x: true, y: false }, y: false, points: { size: 7 }, dataIdx: nearest },
      series: [{}, ...shown.curves.map((curve) => this.series(curve))],
      bands: shown.bands ?? [],
      hooks: { setCursor: [() => this.read()], draw: [() => this.marks()] },
    };
    if (shown.x.log) options.scales.x.range = (_, low, high) => [low, high];
    this.canvas.querySelector(".uplot")?.remove();
    this.plot = new uPlot(options, [shown.x.values, ...shown.curves.map((curve) => curve.values)], this.canvas);
    if (shown.x.view) this.plot.setScale("x", shown.x.view);
  }

  series(curve) {
    const method = this.study.methods[curve.method];
    const dash = method.dash.length ? { dash: method.dash } : {};
    return { label: method.label, stroke: curve.width ? colourOf(method) : "transparent", width: curve.width, ...dash, spanGaps: !curve.gaps, points: { show: false }, show: !this.hidden.has(curve.method), scale: "y" };
  }

  update() {
    this.shown.curves.forEach((curve, at) => this.plot.setSeries(at + 1, { show: !this.hidden.has(curve.method) }));
    this.plot.redraw();
  }

  // The loss of the comparison, the line at 1, and a dot where a curve ends.
  marks() {
    const { ctx, bbox } = this.plot;
    const shown = this.shown;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.lineWidth = scale;
    ctx.strokeStyle = ink("--quiet");
    const line = (horizontal, value) => {
      const at = this.plot.valToPos(value, horizontal ? "y" : "x", true);
      const [low, size] = horizontal ? [bbox.top, bbox.height] : [bbox.left, bbox.width];
      if (!(at >= low && at <= low + size)) return;
      ctx.beginPath();
      if (horizontal) ctx.moveTo(bbox.left, at), ctx.lineTo(bbox.left + bbox.width, at);
      else ctx.moveTo(at, bbox.top), ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
    };
    ctx.setLineDash([]); // series leave theirs
    if (shown.one) line(true, 1);
    ctx.setLineDash([3 * scale, 3 * scale]);
    if (shown.rule !== undefined) line(shown.ruleAcross, shown.rule);
    ctx.setLineDash([]);
    for (const end of shown.ends ?? []) {
      if (this.hidden.has(end.method)) continue;
      const [x, y] = [this.plot.valToPos(end.x, "x", true), this.plot.valToPos(end.y, "y", true)];
      if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1 || y < bbox.top - 1) continue;
      ctx.fillStyle = colourOf(this.study.methods[end.method]);
      ctx.beginPath();
      ctx.arc(x, y, 4 * scale, 0, 2 * Math.PI);
      ctx.fill();
    }
    ctx.restore();
  }

  read() {
    const { left, idx, idxs } = this.plot.cursor;
    if (left < 0 || idx === null || idx === undefined) {
      this.tip.hidden = true;
      return "";
    }
    const x = this.plot.posToVal(left, "x");
    const lines = [];
    const named = new Set();
    this.shown.curves.forEach((curve, at) => {
      const value = curve.values[idxs[at + 1]];
      if (this.hidden.has(curve.method) || curve.quiet || named.has(curve.method) || value === null || value === undefined) return;
      named.add(curve.method);
      lines.push([this.study.methods[curve.method], digits(value)]);
    });
    const head = this.shown.words(x);
    this.tip.replaceChildren(element("b", head), ...lines.map(([method, value]) => {
      const row = element("div", `${method.label} ${value}`);
      row.style.borderLeftColor = colourOf(method);
      return row;
    }));
    this.tip.hidden = !lines.length;
    const width = this.canvas.clientWidth;
    const at = left + this.plot.bbox.left / devicePixelRatio;
    this.tip.style.left = at > width / 2 ? "auto" : `${at + 12}px`;
    this.tip.style.right = at > width / 2 ? `${width - at + 12}px` : "auto";
    return `${head}: ${lines.map(([method, value]) => `${method.label} ${value}`).join(", ")}`;
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in steps) {
      const width = this.plot.bbox.width / devicePixelRatio;
      const now = this.plot.cursor.left >= 0 ? this.plot.cursor.left : width / 2;
      const left = Math.min(width - 1, Math.max(0, now + (steps[event.key] * width) / 40));
      this.plot.setCursor({ left, top: 5 });
      this.spoken.textContent = this.read();
    } else if (event.key === "+" || event.key === "=") this.zoom(0.5);
    else if (event.key === "-") this.zoom(2);
    else if (event.key === "0" || event.key === "Escape") this.zoom(0);
    else return;
    event.preventDefault();
  }

  // By a factor around the pointer or the middle; 0 shows everything.
  zoom(factor) {
    const values = this.plot.data[0];
    const [first, last] = [values[0], values[values.length - 1]];
    if (!factor) return this.plot.setScale("x", { min: first, max: last });
    const log = this.shown.x.log;
    const [to, from] = log ? [Math.log, Math.exp] : [(v) => v, (v) => v];
    const { min, max } = this.plot.scales.x;
    const middle = this.plot.cursor.left >= 0 ? this.plot.posToVal(this.plot.cursor.left, "x") : from((to(min) + to(max)) / 2);
    const [low, high] = [middle, middle].map((at, end) => from(to(at) + (to(end ? max : min) - to(at)) * factor));
    this.plot.setScale("x", { min: Math.max(first, low), max: Math.min(last, high) });
  }
}

// Curves have points of their own: under the pointer is the nearest that a curve has.
function nearest(chart, series, at) {
  const [x, values] = [chart.data[0], chart.data[series]];
  const known = (place) => values[place] !== null && values[place] !== undefined;
  if (!series || known(at)) return at;
  let [before, after] = [at, at];
  while (before >= 0 && !known(before)) before--;
  while (after < values.length && !known(after)) after++;
  if (before < 0) return after < values.length ? after : at;
  return after < values.length && x[after] - x[at] < x[at] - x[before] ? after : before;
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
