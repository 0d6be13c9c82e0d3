// What stands below the first screen: drawn one by one while the browser is idle, and all of it before a page is printed.
const withoutScripts = "noscript"; // its content is text here, so that a page opens before its figures are read
const later = window.requestIdleCallback?.bind(window) ?? setTimeout; // Safari has none
const covered = page ? ".replaced, .covered *" : ":not(*)"; // by charts, on a screen

function drawFigure(holder) {
  const text = holder.querySelector(withoutScripts);
  if (!text) return;
  holder.innerHTML = text.textContent;
  page?.showSeries(holder);
}

function drawLosses() {
  const holder = document.querySelector("[data-chart=loss]");
  if (!page || !holder) return;
  for (const drawn of document.querySelectorAll("[data-files]")) {
    const links = document.querySelectorAll(`#figure-${drawn.dataset.files} .files a`);
    for (const link of links) drawn.append(link.cloneNode(true), " ");
  }
  const curves = JSON.parse(document.querySelector("#curves").textContent);
  for (const series of curves.flat()) for (const name of Object.keys(series)) if (name !== "method") series[name] = unpacked(series[name]);
  page.addLossChart(holder, curves);
}

const drawings = [...document.querySelectorAll(".drawing")];
const drawAll = () => drawings.forEach(drawFigure);
addEventListener("beforeprint", drawAll);
matchMedia("print").addEventListener("change", (media) => media.matches && drawAll());

// Resolves once everything that a screen shows is drawn.
const everythingDrawn = new Promise((resolve) => {
  const steps = [drawLosses, ...drawings.filter((holder) => !holder.matches(covered)).map((holder) => () => drawFigure(holder))];
  const next = () => {
    if (!steps.length) return resolve();
    steps.shift()();
    later(next);
  };
  later(next);
});
