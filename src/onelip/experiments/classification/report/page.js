"use strict";
// Draws the figures of a report and moves them with the slider. All numbers are in the element
// "data": radii rounded downwards to 32 bits, so that no share here is above what is proved.

const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("eps");
const top_eps = data.grid[data.grid.length - 1], COLORS = 8, BINS = 40;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

for (const subject of data.subjects) {
  for (const seed of subject.seeds) {
    seed.radius = new Float32Array(bytes(seed.radius));
    seed.prediction = new Uint16Array(bytes(seed.prediction));
    seed.label = new Uint16Array(bytes(seed.label));
    seed.total = seed.label.length;
    seed.sorted = seed.radius.filter((_, i) => seed.prediction[i] === seed.label[i]).sort();
  }
  subject.total = sum(subject.seeds.map((seed) => seed.total));
  subject.right = sum(subject.seeds.map((seed) => seed.sorted.length));
  subject.shares = data.grid.map((eps) => subject.seeds.map((seed) => above(seed, eps) / seed.total));
}

// How many samples of a seed are right, with a radius larger than eps.
function above(seed, eps) {
  let low = 0, high = seed.sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (seed.sorted[middle] > eps) high = middle;
    else low = middle + 1;
  }
  return seed.sorted.length - low;
}

// Per cent with two decimal places, rounded downwards in integers.
function percent(count, total) {
  const hundredths = (10000 * count - ((10000 * count) % total)) / total;
  return Math.floor(hundredths / 100) + "." + String(hundredths % 100).padStart(2, "0");
}

const mean = (values) => sum(values) / values.length;
const deviation = (values) =>
  Math.sqrt(sum(values.map((value) => (value - mean(values)) ** 2)) / (values.length - 1));

function make(name, attributes = {}, ...children) {
  const drawn = ["svg", "path", "line", "text", "circle"].includes(name);
  const made = document.createElementNS(`http://www.w3.org/${drawn ? "2000/svg" : "1999/xhtml"}`, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const color = (place) => "c" + (place % COLORS) + (place >= COLORS ? " dashed" : "");

function ticks(top, count) {
  const power = 10 ** Math.floor(Math.log10(top / count));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= top / count);
  const found = [];
  for (let k = 0; k * step <= top * (1 + 1e-9); k += 1) found.push(Number((k * step).toPrecision(6)));
  return found;
}

// An empty figure in a host element: axes, a grid, and functions from values to pixels.
function axes(host, words, xTop, yTop, xLabel, yLabel, height) {
  const width = Math.max(240, host.clientWidth || 640);
  const left = 46, right = 12, top = 10, bottom = 40;
  const x = (value) => left + ((width - left - right) * value) / xTop;
  const y = (value) => height - bottom - ((height - top - bottom) * value) / yTop;
  const figure = make("svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words,
  });
  const put = (name, ...rest) => figure.append(make(name, ...rest));
  for (const value of ticks(yTop, 5)) {
    put("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" });
    put("text", { x: left - 6, y: y(value) + 4, class: "tick end" }, String(value));
  }
  for (const value of ticks(xTop, width / 90)) {
    put("line", { x1: x(value), x2: x(value), y1: top, y2: y(0), class: "grid" });
    put("text", { x: x(value), y: y(0) + 16, class: "tick" }, String(value));
  }
  put("text", { x: (left + width - right) / 2, y: height - 4, class: "axis" }, xLabel);
  if (yLabel) {
    const turned = { x: -(top + y(0)) / 2, y: 12, transform: "rotate(-90)", class: "axis" };
    put("text", turned, yLabel);
  }
  host.replaceChildren(figure);
  return { put, x, y };
}

// Steps that take the value at the right end of each interval: never above a falling curve.
function steps(xs, ys, axis) {
  const parts = [`M${axis.x(xs[0])} ${axis.y(ys[0])}`];
  const at = (i) => `V${axis.y(ys[i]).toFixed(2)}H${axis.x(xs[i]).toFixed(2)}`;
  for (let i = 1; i < xs.length; i += 1) parts.push(at(i));
  return parts.join("");
}

function line(points, axis) {
  const pen = (i) => (i === 0 || points[i - 1][1] === null ? "M" : "L");
  const at = ([x, y]) => `${axis.x(x).toFixed(2)} ${axis.y(y).toFixed(2)}`;
  return points.map((point, i) => (point[1] === null ? "" : pen(i) + at(point))).join("");
}

function band(subject, axis) {
  const within = (value) => Math.min(100, Math.max(0, 100 * value));
  const around = (sign) => subject.shares.map((of) => within(mean(of) + sign * deviation(of)));
  const upper = around(1), lower = around(-1);
  const back = data.grid.map((eps, i) => `L${axis.x(eps).toFixed(2)} ${axis.y(lower[i]).toFixed(2)}`);
  return line(data.grid.map((eps, i) => [eps, upper[i]]), axis) + back.reverse().join("") + "Z";
}

function cursor(axis, eps, place) {
  const at = axis.x(eps);
  axis.put("line", { x1: at, x2: at, y1: 10, y2: axis.y(0), class: "cursor" });
  if (place === null) return;
  for (const [i, subject] of data.subjects.entries()) {
    const cy = axis.y(100 * mean(subject.shares[place]));
    axis.put("circle", { cx: at, cy, r: 4.5, class: "dot " + color(i) });
  }
}

function drawAccuracy(place) {
  const host = document.getElementById("accuracy-plot"), label = `eps (l2, ${data.unit})`;
  const words = "Certified and attacked accuracy against eps; the tables below hold its numbers";
  const height = host.clientWidth < 480 ? 260 : 340;
  const axis = axes(host, words, top_eps, 100, label, "accuracy, %", height);
  for (const [i, subject] of data.subjects.entries()) {
    const shares = subject.shares.map((of) => 100 * mean(of));
    const path = steps(data.grid, shares, axis);
    if (data.subjects.length === 1) {
      axis.put("path", { d: `${path}V${axis.y(0)}H${axis.x(0)}Z`, class: "fill " + color(i) });
    }
    if (subject.seeds.length > 1) axis.put("path", { d: band(subject, axis), class: "band " + color(i) });
    axis.put("path", { d: path, class: "curve " + color(i) });
    if (!subject.attack) continue;
    const points = subject.attack.at.map((row) => [row.eps, row.value]).filter(([x]) => x <= top_eps);
    axis.put("path", { d: line(points, axis), class: "attacked " + color(i) });
    for (const [eps, value] of points) {
      axis.put("circle", { cx: axis.x(eps), cy: axis.y(value), r: 3.5, class: "ring " + color(i) });
    }
  }
  cursor(axis, data.grid[place], place);
}

function drawRadii(place) {
  const edges = Array.from({ length: BINS + 1 }, (_, i) => (i * top_eps) / BINS);
  const counts = data.subjects.map((subject) => {
    const over = (edge) => sum(subject.seeds.map((seed) => above(seed, edge))) / subject.seeds.length;
    const bins = edges.slice(1).map((edge, i) => (i ? over(edges[i]) : over(-1)) - over(edge));
    return [bins[0], ...bins];
  });
  const most = Math.max(1, ...counts.flat()) * 1.05;
  const several = data.subjects.some((subject) => subject.seeds.length > 1);
  const label = several ? "samples, mean over seeds" : "samples";
  const words = "How many samples have which radius; the table below holds quantiles";
  const host = document.getElementById("radii-plot");
  const axis = axes(host, words, top_eps, most, "certified radius", label, 220);
  for (const [i, bins] of counts.entries()) {
    const path = `M${axis.x(0)} ${axis.y(0)}${steps(edges, bins, axis).replace("M", "L")}V${axis.y(0)}`;
    const alone = counts.length === 1 ? " filled" : "";
    axis.put("path", { d: path, class: "curve " + color(i) + alone });
  }
  cursor(axis, data.grid[place], null);
}

function drawTraining() {
  const host = document.getElementById("training-plots");
  if (!host) return;
  const names = [...new Set(data.subjects.flatMap((subject) => Object.keys(subject.training)))];
  const hosts = names.map(() => make("div", { class: "plot" }));
  const captions = names.map((name) => make("figcaption", {}, name.replaceAll("_", " ")));
  host.replaceChildren(...hosts.map((plot, i) => make("figure", {}, captions[i], plot)));
  for (const [which, name] of names.entries()) {
    const of = data.subjects.map((subject) => subject.training[name] || []);
    const values = of.flat(2).filter((value) => value !== null && value >= 0);
    const epochs = Math.max(1, ...of.flat().map((run) => run.length));
    const words = `${name.replaceAll("_", " ")} by epoch; the tables below hold its numbers`;
    const axis = axes(hosts[which], words, epochs, Math.max(1e-9, ...values) * 1.05, "epoch", "", 190);
    for (const [i, runs] of of.entries()) {
      for (const run of runs) {
        const points = run.map((value, epoch) => [epoch + 1, value < 0 ? null : value]);
        axis.put("path", { d: line(points, axis), class: "curve thin " + color(i) });
      }
    }
  }
}

// Accuracy under the attacks of the largest radius that was attacked and is no larger than eps:
// an upper bound of what holds at eps.
function attackedAt(subject, eps) {
  if (!subject.attack) return { text: "-", below: "", words: "not attacked", more: "" };
  const { text, spread, eps: at, eps_text } = subject.attack.at.filter((row) => row.eps <= eps).pop();
  if (at === eps) return { text, below: "", words: `attacked ${text} %`, more: spread };
  return { text, below: "≤ ", words: `attacked at most ${text} %`, more: `attacked at ${eps_text}` };
}

function showReadout(place) {
  const eps = data.grid[place], text = data.texts[place], spoken = [];
  const spread = (shares) => (shares.length > 1 ? `± ${(100 * deviation(shares)).toFixed(2)}` : "");
  const cell = (words, more, kind) => make("td", { class: kind }, words, make("small", {}, more));
  const rows = data.subjects.map((subject, i) => {
    const certified = percent(sum(subject.seeds.map((seed) => above(seed, eps))), subject.total);
    const clean = percent(subject.right, subject.total);
    const right = subject.seeds.map((seed) => seed.sorted.length / seed.total);
    const attacked = attackedAt(subject, eps);
    const name = data.subjects.length > 1 ? subject.label + ": " : "";
    spoken.push(`${name}certified ${certified} %, ${attacked.words}, clean ${clean} %`);
    return make("tr", {},
      make("th", { scope: "row" }, make("span", { class: "swatch " + color(i) }), subject.label),
      cell(certified, spread(subject.shares[place]), "certified"),
      cell(attacked.below + attacked.text, attacked.more, "attack"),
      cell(clean, spread(right), "clean"));
  });
  const heads = [`eps ${text}, %`, "certified", "attacked", "clean"];
  const head = make("tr", {}, ...heads.map((word) => make("th", { scope: "col" }, word)));
  const shown = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  document.getElementById("readout").replaceChildren(shown);
  document.getElementById("eps-value").textContent = text;
  slider.setAttribute("aria-valuetext", `eps ${text}`);
  clearTimeout(showReadout.waiting); // speak once the slider rests
  showReadout.waiting = setTimeout(() => {
    document.getElementById("spoken").textContent = `At eps ${text}: ${spoken.join("; ")}.`;
  }, 150);
}

function showClasses(place) {
  const eps = data.grid[place];
  for (const host of document.querySelectorAll(".classes")) {
    const subject = data.subjects[Number(host.dataset.subject)];
    const certified = new Array(subject.classes).fill(0), totals = new Array(subject.classes).fill(0);
    for (const seed of subject.seeds) {
      for (const [i, label] of seed.label.entries()) {
        totals[label] += 1;
        if (seed.prediction[i] === label && seed.radius[i] > eps) certified[label] += 1;
      }
    }
    host.querySelector("th.live").textContent = `slider: ${data.texts[place]}`;
    for (const [label, cell] of host.querySelectorAll("td.live").entries()) {
      const share = totals[label] ? percent(certified[label], totals[label]) : "-";
      cell.textContent = share;
      cell.style.setProperty("--share", `${Number(share) || 0}%`);
    }
  }
}

function show() {
  const place = Number(slider.value);
  drawAccuracy(place);
  drawRadii(place);
  showReadout(place);
  showClasses(place);
}

function legend() {
  const host = document.getElementById("legend");
  const item = (kind, words) => make("li", {}, make("span", { class: kind }), words);
  const swatches = data.subjects.map((subject, i) => item("swatch " + color(i), subject.label));
  host.append(...(swatches.length > 1 ? swatches : []), item("key solid", "certified"));
  const names = new Set(data.subjects.filter((s) => s.attack).map((s) => s.attack.name));
  if (names.size) host.append(item("key broken", "attacked: " + [...names].join("; ")));
  const seeds = Math.max(...data.subjects.map((subject) => subject.seeds.length));
  if (seeds > 1) host.append(item("key wide", `± standard deviation over ${seeds} seeds`));
}

function follow(event) {
  if (event.buttons !== 1 && event.type !== "pointerdown") return;
  const box = event.currentTarget.getBoundingClientRect();
  const eps = (top_eps * (event.clientX - box.left - 46)) / (box.width - 58);
  const place = data.grid.findIndex((value) => value >= eps);
  slider.value = place < 0 ? data.grid.length - 1 : place;
  show();
}

document.documentElement.classList.add("js");
for (const host of document.querySelectorAll(".classes")) {
  host.querySelector("thead tr").append(make("th", { scope: "col", class: "live" }));
  for (const row of host.querySelectorAll("tbody tr")) row.append(make("td", { class: "live" }));
}
legend();
slider.addEventListener("input", show);
for (const button of document.querySelectorAll("button[data-place]")) {
  button.addEventListener("click", () => { slider.value = button.dataset.place; show(); });
}
for (const kind of ["pointerdown", "pointermove"]) {
  document.getElementById("accuracy-plot").addEventListener(kind, follow);
}
const main = document.getElementById("main");
new ResizeObserver(() => {
  if (main.clientWidth === show.width) return;
  show.width = main.clientWidth;
  show();
  drawTraining();
}).observe(main);
const closed = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => closed.forEach((one) => { one.open = true; }));
addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
document.documentElement.dataset.ready = "";
