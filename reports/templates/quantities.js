// Numbers for people, as reports/style/quantities.py writes them.
const NARROW = "\u202f";
const SCALES = {
  s: [[1e-6, "µs"], [1e-3, "ms"], [1, "s"], [3600, "h"]],
  B: [[1, "B"], [1e3, "kB"], [1e6, "MB"], [1e9, "GB"], [1e12, "TB"]],
  tokens: [[1, "tokens"], [1e3, "thousand tokens"], [1e6, "million tokens"], [1e9, "billion tokens"]],
};

function digits(value, count = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(count));
  const places = count - 1 - Math.floor(Math.log10(Math.abs(rounded)) + 1e-12);
  const [whole, part] = rounded.toFixed(Math.max(0, Math.min(places, 9))).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, NARROW) + (part ? `.${part}` : "");
}

function scaleFor(quantity, largest) {
  let chosen = SCALES[quantity].find(([factor]) => factor === 1);
  if (largest > 0) chosen = SCALES[quantity][0];
  for (const [factor, unit] of SCALES[quantity]) if (largest >= (unit === "h" ? 3 * factor : factor)) chosen = [factor, unit];
  return { factor: chosen[0], unit: chosen[1] };
}

function show(value, quantity) {
  if (value === null || !Number.isFinite(value)) return "–";
  const scale = scaleFor(quantity, Math.abs(value));
  return `${digits(value / scale.factor)}${NARROW}${scale.unit}`;
}

function listed(names) {
  if (names.length > 4) return `${names.slice(0, 3).join(", ")} and ${names.length - 3} others`;
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
