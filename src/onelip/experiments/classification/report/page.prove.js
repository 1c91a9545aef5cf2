"use strict";
// Proves the numbers of a report where it is read. The checker in Go, as WebAssembly in a worker,
// decides on the bundle inside the page; what the page shows is then compared with what is proved.
// Nothing of the page is taken for granted but this script, whose digest stands in the policy.

(() => {
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const FILES = { "proof.json": "bundle-proof", "tensors.safetensors": "bundle-tensors" };

let worker = null; // of the check that runs
let url = null;

// A claim as the checker reads it: hexadecimal, exactly.
function number(text) {
  const parts = /^(-?)0x([01])(?:\.([0-9a-f]{1,13}))?p([+-]\d{1,4})$/.exec(text);
  if (!parts) throw new Error(`${text} is no number`);
  const [, sign, whole, fraction = "", power] = parts;
  const value = (Number(whole) + parseInt(fraction || "0", 16) / 16 ** fraction.length) * 2 ** Number(power);
  return sign ? -value : value;
}

// A number as the page shows it.
function shownNumber(text) {
  const parts = /^(\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:\/(\d+))?$/.exec(text.trim());
  if (!parts) throw new Error(`“${text}” is shown, which is no number`);
  return Number(parts[1]) / Number(parts[2] ?? 1);
}

const cell = (row, index) => row.cells[index].textContent;

// The samples of the bundle: shape and numbers.
function samplesOf(proof, tensors) {
  const view = new DataView(tensors.buffer, tensors.byteOffset, tensors.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(tensors.subarray(8, 8 + length)));
  const found = header[proof.samples.inputs];
  const kind = { F32: Float32Array, F64: Float64Array }[found.dtype];
  const [from, to] = found.data_offsets.map((place) => 8 + length + place);
  return { shape: found.shape, values: new kind(tensors.slice(from, to).buffer) };
}

// Whether a picture shows a sample, with 8 bits a channel.
async function pictures(image, samples, place) {
  const [, channels, height, width] = samples.shape;
  await image.decode();
  if (image.naturalWidth !== width || image.naturalHeight !== height) return false;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const area = width * height;
  const value = (channel, pixel) => 255 * samples.values[(place * channels + channel) * area + pixel];
  for (let pixel = 0; pixel < area; pixel++) {
    let mean = 0;
    for (let channel = 0; channel < channels; channel++) mean += value(channel, pixel) / channels;
    for (let channel = 0; channel < 3; channel++) {
      const wanted = channels === 3 ? value(channel, pixel) : mean; // as the report draws it
      if (!(Math.abs(wanted - pixels[4 * pixel + channel]) <= 1)) return false;
    }
  }
  return true;
}

// What the page shows that is not what was proved, in words.
async function differences(proof, tensors, digests) {
  const found = [];
  const told = JSON.parse($("data").textContent), carried = told.proof;
  const radii = proof.samples.radii.map(number), predictions = proof.samples.predictions;
  const rows = carried.rows, [seed] = told.subjects[0].seeds;
  const stored = {
    radius: new Float32Array(bytes(seed.radius).buffer),
    prediction: new Uint16Array(bytes(seed.prediction).buffer),
    label: new Uint16Array(bytes(seed.label).buffer),
  };
  if (told.subjects.length !== 1 || told.subjects[0].seeds.length !== 1) found.push("there is more than one run");
  if (rows.length !== radii.length || new Set(rows).size !== rows.length) found.push("there are other samples");
  for (const row of $("bundle").tBodies[0].rows) {
    const name = cell(row, 0);
    if (digests[name] !== cell(row, 2)) found.push(`${name}: its SHA-256 is ${digests[name]}`);
    delete digests[name];
  }
  for (const name of Object.keys(digests)) found.push(`${name} is not in the table of files`);
  // constants: shown ones may be larger
  for (const node of document.querySelectorAll("[data-proved-bound]")) {
    if (!(shownNumber(node.textContent) >= number(proof.bound))) found.push(`the bound ${node.textContent} is shown`);
  }
  // radii: those of figures and of samples may be smaller
  rows.forEach((row, place) => {
    const radius = stored.radius[row];
    if (!(radius <= radii[place])) found.push(`sample ${row}: the figures have the radius ${radius}`);
    if (radii[place] > 0 && stored.prediction[row] !== predictions[place]) found.push(`sample ${row}: the figures have another prediction`);
  });
  const samples = samplesOf(proof, tensors);
  for (const item of document.querySelectorAll(".gallery > li")) {
    const title = item.querySelector("h3").textContent, row = Number(title.replace("Sample ", ""));
    const place = rows.indexOf(row);
    if (place < 0) { found.push(`${title} is not in the bundle`); continue; }
    const terms = [...item.querySelectorAll("dl:last-of-type > dt")];
    const facts = Object.fromEntries(terms.map((dt) => [dt.textContent, dt.nextSibling.textContent]));
    if (terms.length !== Object.keys(facts).length) found.push(`sample ${row} says something twice`);
    const right = predictions[place] === stored.label[row], name = carried.names[predictions[place]];
    const proved = facts.radius === "none" ? !right : right && shownNumber(facts.radius) <= radii[place];
    if (!proved) found.push(`sample ${row}: the radius ${facts.radius} is shown`);
    if (radii[place] > 0 && facts.predicted !== (right ? name : `${name} (wrong)`)) found.push(`sample ${row}: the prediction ${facts.predicted} is shown`);
    if (facts.label !== carried.names[stored.label[row]]) found.push(`sample ${row}: the label ${facts.label} is shown`);
    const image = item.querySelector("img");
    if (image && !(await pictures(image, samples, place))) found.push(`sample ${row}: another image is shown`);
  }
  // accuracy of the samples that are here
  for (const row of $("carried").tBodies[0].rows) {
    const eps = shownNumber(cell(row, 0));
    const right = rows.filter((sample, place) => predictions[place] === stored.label[sample] && radii[place] > eps);
    const words = `${right.length} of ${rows.length}`;
    if (cell(row, 1) !== words) found.push(`at ${cell(row, 0)}: ${cell(row, 1)} is shown, ${words} is proved`);
  }
  return found;
}

function verdict(className, title, why, list = []) {
  worker?.terminate();
  worker = null;
  $("proving").hidden = true;
  $("prove").disabled = false;
  const strong = document.createElement("strong"), span = document.createElement("span");
  strong.textContent = title;
  span.textContent = why;
  $("proof-verdict").className = className;
  $("proof-verdict").replaceChildren(strong, " ", span);
  $("proof-wrong").replaceChildren(...list.slice(0, 20).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

async function prove() {
  worker?.terminate();
  for (const id of ["proof-verdict", "proof-wrong", "proof-lines"]) $(id).replaceChildren();
  $("proof-verdict").className = "";
  $("proving").hidden = false;
  $("prove").disabled = true;
  $("proof-now").textContent = "Starting the checker";
  $("proof-progress").removeAttribute("value");
  try {
    const contents = Object.fromEntries(Object.entries(FILES).map(([name, id]) => [name, bytes($(id).textContent)]));
    const packed = new Blob([bytes($("wasm").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const program = await WebAssembly.compile(await new Response(packed).arrayBuffer());
    url ??= URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" }));
    const files = Object.entries(contents).map(([name, content]) => new File([content], name));
    const mine = new Worker(url), digests = {};
    worker = mine;
    mine.onerror = (event) => {
      event.preventDefault();
      if (worker === mine) verdict("", "No verdict", `the checker stopped: ${event.message}`);
    };
    mine.onmessage = async ({ data: [kind, ...what] }) => {
      if (worker !== mine) return;
      if (kind === "begins") {
        const [name, done, of] = what;
        $("proof-now").textContent = name.startsWith("sample ") ? `Sample ${done + 1} of ${of}` : `Map ${Math.min(done + 1, of)} of ${of}`;
        $("proof-progress").max = Math.max(of, 1);
        $("proof-progress").value = done;
      } else if (kind === "line") {
        const item = document.createElement("li");
        item.textContent = what[0];
        $("proof-lines").append(item);
      } else if (kind === "file") digests[what[0]] = what[2];
      else if (kind === "invalid") verdict("invalid", "NOT PROVED", what[0]);
      else if (kind === "ended") verdict("", "No verdict", `the checker stopped: ${what[0] || "no reason is known"}`);
      else if (kind === "valid") {
        worker = null; // what comes later is about nothing
        mine.terminate();
        try {
          const proof = JSON.parse(new TextDecoder().decode(contents["proof.json"]));
          const found = await differences(proof, contents["tensors.safetensors"], digests);
          if (found.length) return verdict("invalid", "NOT PROVED", "The bundle is valid, and this page shows something else:", found);
          verdict("valid", "PROVED", `Bound and radii of ${proof.samples.radii.length} samples, and what this page says of them, just now on this machine.`);
        } catch (error) {
          verdict("invalid", "NOT PROVED", `the page cannot be compared with its bundle: ${error.message}`);
        }
      }
    };
    mine.postMessage({ wasm: program, files, names: files.map((file) => file.name), zip: false, work: 1 });
  } catch (error) {
    verdict("", "No verdict", `the checker cannot be started: ${error.message}`);
  }
}

$("prove").onclick = prove;
$("proof-cancel").onclick = () => verdict("", "Cancelled", "There is no verdict.");
for (const link of document.querySelectorAll("[data-save]")) {
  link.onclick = () => {
    const saved = document.createElement("a");
    saved.download = link.dataset.save;
    saved.href = URL.createObjectURL(new Blob([bytes($(FILES[link.dataset.save]).textContent)]));
    saved.click();
    setTimeout(() => URL.revokeObjectURL(saved.href), 1000);
  };
}
document.documentElement.dataset.provable = "";
})();
