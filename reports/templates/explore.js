// The page that answers: network, target loss, methods shown, axes.
function explore(study) {
  const box = document.querySelector("#explore");
  const hidden = new Set();
  const levels = Object.fromEntries(Object.entries(study.levels).map(([group, level]) => [group, level.loss]));
  const cards = [...document.querySelectorAll(".answers > li")];
  const original = cards.map((card) => [...card.querySelectorAll("[data-part]")].map((part) => part.textContent));
  const overview = document.querySelector("#overview");
  const first = overview?.textContent;
  const control = { place: box.querySelector("#place"), slider: box.querySelector("#level"), number: box.querySelector("#level-number"), reset: box.querySelector("#level-reset") };
  const status = box.querySelector("#level-status");
  let place = study.places[Math.max(0, study.places.findIndex((one) => study.levels[one.group]))];
  const charts = [];
  let curvesOf = null; // of each network, for the chart of losses: they stand further down the page
  const moved = (group) => levels[group] !== study.levels[group]?.loss;

  // --- the answer at a loss ---
  function showCards() {
    study.places.forEach((one, at) => {
      const card = cards[at];
      const answer = moved(one.group) ? answerAt(study, one, levels[one.group]) : null;
      card.querySelectorAll("[data-part]").forEach((part, index) => {
        const text = answer && part.dataset.part in answer ? answer[part.dataset.part] : original[at][index];
        const quiet = answer && ["why", "elsewhere"].includes(part.dataset.part); // of another pair, another loss
        part.textContent = quiet ? "" : text;
        part.hidden = quiet || !text;
      });
    });
    if (overview) overview.textContent = Object.keys(levels).some(moved) ? overviewAt() : first;
  }

  function overviewAt() {
    const wins = new Map();
    for (const one of study.places) {
      const answer = study.levels[one.group] ? answerAt(study, one, levels[one.group]) : null;
      const name = answer?.fastest && !one.overrun ? study.methods[answer.fastest.method].label : "no method";
      wins.set(name, (wins.get(name) ?? 0) + 1);
    }
    const words = [...wins].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name} on ${count}`);
    return `Fastest to the chosen loss, of ${study.places.length} networks: ${words.join(", ")}.`;
  }

  function showRanking() {
    const level = levels[place.group];
    const times = timesAt(place, level).sort((a, b) => (a.seconds ?? Infinity) - (b.seconds ?? Infinity));
    const longest = Math.max(...times.map((one) => one.seconds ?? 0));
    box.querySelector("#ranking tbody").replaceChildren(...times.map((one) => {
      const row = element("tr", "");
      const method = study.methods[one.method];
      const speed = one.method === place.baseline ? null : speedupAt(place, one.method, level);
      const words = one.seconds === null ? (one.reached ? `${one.reached} of ${one.runs} reached it` : "not reached") : `${one.atFirst ? "≤ " : ""}${show(one.seconds, "s")}`;
      const time = element("td", words, { class: "n" });
      if (one.seconds !== null) {
        const bar = element("span", "", { class: "bar", "aria-hidden": "true" });
        bar.style.width = `${(100 * one.seconds) / longest}%`;
        bar.style.background = colourOf(method);
        time.append(bar);
      }
      const ratio = one.method === place.baseline ? "1" : speed && one.seconds !== null ? `${digits(speed.ratio)}×` : "–";
      const range = speed && one.seconds !== null ? (Number.isFinite(speed.high) ? `${digits(speed.low)} to ${digits(speed.high)}` : `≥ ${digits(speed.low)}`) : "";
      row.append(element("th", method.label, { scope: "row" }), time, element("td", ratio, { class: "n" }), element("td", range, { class: "n" }));
      row.dataset.method = one.method;
      return row;
    }));
    box.querySelector("#ranking caption").textContent = `Time to held-out loss ${level.toFixed(3)} on ${place.name}`;
  }

  function showLevel(speak) {
    showCards();
    showRanking();
    for (const chart of charts) chart.shown && (Object.assign(chart.shown, chart.rule?.() ?? {}), chart.plot.redraw(false));
    const level = levels[place.group];
    control.slider.value = control.number.value = level.toFixed(3);
    control.slider.setAttribute("aria-valuetext", `held-out loss ${level.toFixed(3)}`);
    control.reset.disabled = !moved(place.group);
    if (speak) status.textContent = answerAt(study, place, level).headline;
  }

  function showPlace() {
    const range = study.levels[place.group];
    for (const input of [control.slider, control.number]) {
      input.min = (Math.ceil(range.low * 1000) / 1000).toFixed(3);
      input.max = (Math.floor(range.high * 1000) / 1000).toFixed(3);
    }
    namePlace();
    for (const chart of charts) chart.draw();
    showLevel(false);
  }

  function namePlace() {
    for (const name of document.querySelectorAll("[data-place-name]")) name.textContent = study.places.length > 1 ? ` – ${place.name}` : "";
  }

  function setLevel(value) {
    const range = study.levels[place.group];
    if (!Number.isFinite(value)) return;
    levels[place.group] = Math.min(range.high, Math.max(range.low, value));
    showLevel(true);
  }

  // --- methods shown, in every figure ---
  function toggle(method, only) {
    if (only) {
      const alone = !hidden.has(method) && hidden.size === study.methods.length - 1;
      hidden.clear();
      if (!alone) study.methods.forEach((_, at) => at !== method && hidden.add(at));
    } else if (!hidden.delete(method)) hidden.add(method);
    for (const chart of charts) chart.update();
    for (const button of document.querySelectorAll("[data-legend]")) button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.legend))));
    showSeries(document);
  }

  function showSeries(part) {
    for (const mark of part.querySelectorAll("[data-series]")) mark.style.visibility = hidden.has(Number(mark.dataset.series)) ? "hidden" : "";
  }

  function legend(holder) {
    study.methods.forEach((method, at) => {
      const button = element("button", "", { type: "button", "data-legend": at, "aria-pressed": String(!hidden.has(at)), title: `${method.label}: show or hide in all figures; with Shift, only this` });
      const line = `<svg viewBox="0 0 30 8" width="30" height="8" aria-hidden="true"><path d="M0 4H30" fill="none" stroke-width="2.2" stroke="${colourOf(method)}" stroke-dasharray="${method.dash.join(" ")}"/></svg>`;
      button.insertAdjacentHTML("afterbegin", line);
      button.append(element("span", method.label));
      button.addEventListener("click", (event) => toggle(at, event.shiftKey));
      holder.append(button);
    });
  }

  // --- charts ---
  function speedupChart() {
    const { losses, curves } = speedupCurves(place);
    const rule = () => ({ rule: levels[place.group] });
    const ends = curves.map((curve) => ({ method: curve.method, x: curve.end, y: curve.all[losses.indexOf(curve.end)] })).filter((end) => end.y !== null && end.y !== undefined);
    const sure = losses.filter((_, at) => curves.some((curve) => curve.sure[at] !== null)); // the rest are bounds
    const view = sure.length > 1 ? { min: losses[0], max: sure[sure.length - 1] } : null;
    return {
      x: { values: losses, label: "target loss (nats/token), harder to the right", reversed: true, view },
      y: { label: `speed-up over ${study.methods[place.baseline].label}`, zero: true },
      curves: [...curves.map(({ method, all }) => ({ method, values: all, width: 0.8, gaps: true })), ...curves.map(({ method, sure }) => ({ method, values: sure, width: 2, gaps: true, quiet: true }))],
      ...rule(),
      one: true,
      ends,
      words: (x) => `loss ${x.toFixed(3)}`,
      nothing: `No other method reached a loss that ${study.methods[place.baseline].label} reached on ${place.name}: there is no speed-up to draw.`,
    };
  }

  const axes = {
    seconds: ["training time", "s"],
    tokens: ["tokens, all workers", "tokens"],
    bytes: ["payload sent per worker", "B"],
  };
  function lossChart() {
    const form = document.querySelector("#loss-axes");
    const x = form.elements["loss-x"].value;
    const log = form.elements["log-x"].checked;
    const drawn = curvesOf[study.places.indexOf(place)];
    const tables = drawn.map((series) => {
      const kept = [...series[x].keys()].filter((at) => !log || series[x][at] > 0);
      const columns = [series.loss, ...(series.low ? [series.low, series.high] : [])];
      return [series[x], ...columns].map((column) => kept.map((at) => column[at]));
    });
    let joined = tables.length && tables.some((table) => table[0].length) ? uPlot.join(tables.map(rising)) : [[]];
    if (!log && joined[0][0] > 0) joined = joined.map((column, at) => [at ? null : 0, ...column]); // the axis begins where training does
    const [curves, bands] = [[], []];
    let at = 1;
    for (const series of drawn) {
      curves.push({ method: series.method, values: joined[at++] ?? [], width: 2 });
      if (!series.low) continue;
      for (let side = 0; side < 2; side++) curves.push({ method: series.method, values: joined[at++] ?? [], width: 0, quiet: true });
      bands.push({ series: [curves.length, curves.length - 1], fill: `${colourOf(study.methods[series.method])}30` });
    }
    const [label, quantity] = axes[x];
    const scale = scaleFor(quantity, Math.max(0, ...joined[0]));
    return {
      x: { values: joined[0], label: `${label} (${scale.unit})`, scale, log },
      y: { label: "held-out loss (nats/token)", log: form.elements["log-y"].checked },
      curves,
      bands,
      rule: levels[place.group],
      ruleAcross: true,
      words: (value) => show(value, quantity),
      nothing: `No run on ${place.name} was evaluated.`,
    };
  }
  // uPlot joins tables whose first column rises; of equal values (no bytes sent between two evaluations) the last counts.
  function rising(table) {
    const kept = table[0].map((value, at) => at).filter((at) => table[0][at] !== table[0][at + 1]);
    return table.map((column) => kept.map((at) => column[at]));
  }

  // --- together ---
  document.documentElement.classList.add("js");
  box.hidden = false;
  study.places.forEach((one, at) => study.levels[one.group] && control.place.append(new Option(one.name, at)));
  control.place.closest("label").hidden = control.place.options.length < 2;
  function addChart(holder, spec) {
    legend(holder.querySelector(".legend"));
    const chart = new Chart(holder, study, hidden, spec);
    chart.rule = () => ({ rule: levels[place.group] });
    charts.push(chart);
    return chart;
  }
  function addLossChart(holder, curves) {
    curvesOf = curves;
    namePlace();
    const chart = addChart(holder, lossChart);
    document.querySelector("#loss-axes").addEventListener("change", () => chart.draw());
    chart.draw();
  }
  const speedup = document.querySelector("[data-chart=speedup]");
  if (speedup) addChart(speedup, speedupChart);
  control.place.addEventListener("change", () => ((place = study.places[Number(control.place.value)]), showPlace()));
  control.slider.addEventListener("input", () => setLevel(control.slider.valueAsNumber));
  control.number.addEventListener("change", () => setLevel(control.number.valueAsNumber));
  control.reset.addEventListener("click", () => ((levels[place.group] = study.levels[place.group].loss), showLevel(true)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.querySelectorAll("[data-legend]").forEach((button) => button.querySelector("path").setAttribute("stroke", colourOf(study.methods[Number(button.dataset.legend)])));
    charts.forEach((chart) => chart.draw());
    showRanking();
  });
  // Paper shows the comparison that the records were made for.
  let before = null;
  addEventListener("beforeprint", () => {
    before = { ...levels };
    for (const group of Object.keys(levels)) levels[group] = study.levels[group].loss;
    showLevel(false);
  });
  addEventListener("afterprint", () => (Object.assign(levels, before), showLevel(false)));
  showPlace();
  return { study, levels, setLevel, charts, hidden, addLossChart, showSeries };
}

const study = prepared(JSON.parse(document.querySelector("#study").textContent));
const page = Object.keys(study.levels).length ? explore(study) : null;
