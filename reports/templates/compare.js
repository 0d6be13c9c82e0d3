// Time to a loss, speed-up and answer at any loss: the same as reports/crossing.py, statistics.py and answers.py.
function unpacked(text) {
  const bytes = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float64Array(bytes.buffer); // little-endian, as every machine with a browser
}

function prepared(study) {
  for (const place of study.places) {
    for (const run of place.runs) {
      run.clock = unpacked(run.clock);
      run.loss = unpacked(run.loss);
      run.lows = []; // where the loss is below all earlier ones
      run.loss.forEach((loss, at) => {
        if (!run.lows.length || loss < run.loss[run.lows[run.lows.length - 1]]) run.lows.push(at);
      });
    }
    place.methods = [...new Set(place.runs.map((run) => run.method))].sort((a, b) => a - b);
    place.runsOf = new Map(place.methods.map((method) => [method, place.runs.filter((run) => run.method === method)]));
    place.seedsOf = new Map(place.methods.map((method) => [method, bySeed(place.runsOf.get(method))]));
  }
  return study;
}

function bySeed(runs) {
  const seeds = new Map();
  for (const run of runs) seeds.set(run.seed, [...(seeds.get(run.seed) ?? []), run]);
  return seeds;
}

// The first time that a run's loss is at or below `level`, interpolated; null if never.
function crossing(run, level) {
  let [from, to] = [0, run.lows.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (run.loss[run.lows[middle]] <= level) to = middle;
    else from = middle + 1;
  }
  if (from === run.lows.length) return null;
  const at = run.lows[from];
  if (at === 0) return { seconds: run.clock[0], low: 0, high: run.clock[0], atFirst: true };
  const [start, above] = [run.clock[at - 1], run.loss[at - 1]];
  const share = (above - level) / (above - run.loss[at]);
  return { seconds: start + share * (run.clock[at] - start), low: start, high: run.clock[at], atFirst: false };
}

function median(values) {
  if (values.length < 2) return values.length ? values[0] : NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

const runsOf = (place, method) => place.runsOf.get(method) ?? [];

// What each method of a network takes to a level; `seconds` is null where a run does not reach it.
function timesAt(place, level) {
  return place.methods.map((method) => {
    const found = runsOf(place, method).map((run) => crossing(run, level));
    const reached = found.filter((one) => one !== null);
    const all = reached.length === found.length;
    return { method, seconds: all ? median(reached.map((one) => one.seconds)) : null, reached: reached.length, runs: found.length, atFirst: reached.some((one) => one.atFirst) };
  });
}

const secondsOf = (one) => one.seconds;

// The time of `reference`, by default the baseline, over the method's, paired by seed; null without a pair.
// known: crossings of runs at this level, which is asked for several methods.
function speedupAt(place, method, level, reference = place.baseline, known = new Map()) {
  const found = (runs) => {
    const all = [];
    for (const run of runs) {
      let one = known.get(run);
      if (one === undefined) known.set(run, (one = crossing(run, level)));
      if (one) all.push(one);
    }
    return all;
  };
  const [ratios, least, most] = [[], [], []];
  let bounded = false;
  for (const [seed, runs] of place.seedsOf.get(method) ?? []) {
    const theirs = found(place.seedsOf.get(reference)?.get(seed) ?? []);
    const mine = theirs.length ? found(runs) : [];
    if (!mine.length) continue;
    for (const a of theirs)
      for (const b of mine) {
        least.push(b.high > 0 ? a.low / b.high : 0);
        most.push(b.low > 0 ? a.high / b.low : Infinity);
        bounded ||= a.atFirst || b.atFirst;
      }
    const [a, b] = [median(theirs.map(secondsOf)), median(mine.map(secondsOf))];
    if (a > 0 && b > 0) ratios.push(a / b);
  }
  if (!ratios.length) return null;
  const ratio = Math.exp(median(ratios.map(Math.log)));
  return { ratio, n: ratios.length, slowest: Math.min(...ratios), quickest: Math.max(...ratios), low: median(least), high: median(most), bounded };
}

function answerAt(study, place, level) {
  const name = (method) => study.methods[method].label;
  const times = timesAt(place, level);
  const reached = times.filter((one) => one.seconds !== null);
  const fastest = reached.reduce((best, one) => (best === null || one.seconds < best.seconds ? one : best), null);
  const baseline = reached.find((one) => one.method === place.baseline) ?? null;
  const close = reached.filter((one) => fastest && one !== fastest && one.seconds < study.tie * fastest.seconds);
  const missed = times.filter((one) => one.seconds === null);
  const answer = { level, times, fastest, close, headline: "", evidence: "", why: "", elsewhere: "", speedup: null };
  const loss = level.toFixed(3);
  if (place.overrun) return { ...answer, headline: "no winner can be named: this host was too slow for the suite's step time" };
  if (!fastest) return { ...answer, headline: `no method reached loss ${loss} in all of its runs` };
  const seconds = `${fastest.atFirst ? "at most " : ""}${show(fastest.seconds, "s")}`;
  const level_with = [fastest, ...close].map((one) => name(one.method));
  const compared = baseline && baseline !== fastest ? speedupAt(place, fastest.method, level) : null;
  // Those that may be as fast, for all that the evaluations around the loss tell.
  const rivals = reached
    .filter((one) => one !== fastest && !close.includes(one))
    .filter((one) => speedupAt(place, fastest.method, level, one.method)?.low <= 1);
  const sure = rivals.length ? "seems" : "is";
  answer.headline = close.length ? `${listed(level_with)} are level: loss ${loss} in ${seconds}` : `${name(fastest.method)} ${sure} fastest: loss ${loss} in ${seconds}`;
  const parts = [];
  if (fastest.method === place.baseline) parts.push("it is the baseline itself");
  else if (baseline) {
    answer.speedup = compared;
    if (answer.speedup) parts.push(timesFaster(answer.speedup, name(place.baseline), baseline.seconds));
  } else if (place.methods.includes(place.baseline)) parts.push(`the baseline ${name(place.baseline)} did not reach it`);
  else parts.push(`the baseline ${name(place.baseline)} has no valid run here`);
  const pair = [...new Set([baseline, fastest])].filter((one) => one && one.atFirst).map((one) => name(one.method));
  if (pair.length) parts.push(`${listed(pair)} had reached it at the first evaluation: that time is a bound`);
  const open = rivals.filter((one) => one.method !== place.baseline).map((one) => name(one.method));
  if (open.length) parts.push(`${listed(open)} may be as fast between the evaluations around the loss`);
  const others = missed.filter((one) => one.method !== place.baseline).map((one) => name(one.method));
  if (others.length) parts.push(`not reached by every run of ${listed(others)}`);
  const fell = reached.filter((one) => (place.final[one.method] ?? -Infinity) > level).map((one) => name(one.method));
  if (fell.length) parts.push(`${listed(fell)} reached it and ended above it`);
  answer.evidence = parts.join("; ");
  return answer;
}

function timesFaster(found, baseline, seconds) {
  let text = `${digits(found.ratio)} times as fast as ${baseline} (${show(seconds, "s")})`;
  const upto = Number.isFinite(found.high) ? `${digits(found.low)} to ${digits(found.high)}` : `at least ${digits(found.low)}`;
  text += `, ${upto} between the evaluations around the loss`;
  if (found.low <= 1 && 1 <= found.high) text += ", which 1 lies in: evaluate more often to be sure";
  if (found.n > 1) return `${text}, ${digits(found.slowest)} to ${digits(found.quickest)} over ${found.n} paired seeds`;
  return `${text}, 1 paired seed, so no interval over seeds`;
}

// Speed-up curves of all methods but the baseline on one grid of losses, from easy to hard.
function speedupCurves(place, count = 160) {
  const ends = new Map(
    place.methods.map((method) => {
      const runs = runsOf(place, method).filter((run) => run.lows.length);
      const bottom = Math.max(...runs.map((run) => run.loss[run.lows[run.lows.length - 1]]));
      return [method, { top: Math.max(...runs.map((run) => run.loss[0])), bottom }];
    }),
  );
  const reference = ends.get(place.baseline);
  if (!reference) return { losses: [], curves: [] };
  const spans = place.methods
    .filter((method) => method !== place.baseline)
    .map((method) => ({ method, top: Math.max(reference.top, ends.get(method).top), bottom: Math.max(reference.bottom, ends.get(method).bottom) }))
    .filter((span) => span.top > span.bottom && Number.isFinite(span.bottom));
  if (!spans.length) return { losses: [], curves: [] };
  const [top, bottom] = [Math.max(...spans.map((s) => s.top)), Math.min(...spans.map((s) => s.bottom))];
  const grid = Array.from({ length: count }, (_, at) => top + ((bottom - top) * at) / (count - 1));
  const losses = [...new Set([...grid, ...spans.map((span) => span.bottom)])].sort((a, b) => a - b);
  const known = losses.map(() => new Map());
  const curves = spans.map(({ method, top, bottom }) => {
    const found = losses.map((loss, at) => (loss <= top && loss >= bottom ? speedupAt(place, method, loss, place.baseline, known[at]) : null));
    const pairs = Math.max(...found.map((one) => one?.n ?? 0));
    const kept = found.map((one) => (one && one.n === pairs ? one : null));
    return { method, all: kept.map((one) => one?.ratio ?? null), sure: kept.map((one) => (one && !one.bounded ? one.ratio : null)), end: bottom };
  });
  return { losses, curves };
}
