"use strict";
// One check of the bundle inside, and a comparison of all that is shown with what was proved.
(() => {
  const $ = (id) => document.getElementById(id);
  const names = { "proof.json": "proof-json", "tensors.safetensors": "proof-tensors" };
  const bytesOf = (id) => {
    if (document.querySelectorAll(`[id="${id}"]`).length !== 1) throw Error(`${id} stands twice, or not at all`);
    return Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  };
  let worker = null;
  let checks = 0;
  let kept = null; // the program, and the text that it was compiled from

  async function compiled() {
    const text = $("proof-wasm").textContent;
    if (kept?.text === text) return kept.program;
    const stream = new Blob([bytesOf("proof-wasm")]).stream().pipeThrough(new DecompressionStream("gzip"));
    const program = await WebAssembly.compile(await new Response(stream).arrayBuffer());
    kept = { text, program };
    return program;
  }

  function finish(kind, title, why, wrong = []) {
    worker?.terminate();
    worker = null;
    checks++;
    $("proof-running").hidden = true;
    $("proof-check").disabled = false;
    document.documentElement.dataset.proof = kind;
    const parts = [["strong", title], ["span", why]].map(([tag, text]) => {
      const made = document.createElement(tag);
      made.textContent = text;
      return made;
    });
    $("proof-verdict").replaceChildren(...parts);
    $("proof-wrong").replaceChildren(...wrong.slice(0, 50).map(item));
  }
  const item = (text) => {
    const made = document.createElement("li");
    made.textContent = text;
    return made;
  };

  // Exact numbers: pairs of whole numbers, the second above 0.
  function exact(text) {
    const found = /^(\d+)(?:\.(\d+))?(?:\/([1-9]\d*))?$/.exec(text);
    if (!found || (found[2] && found[3])) throw Error(`${text.slice(0, 40)} is no number`);
    const digits = found[2] ?? "";
    return [BigInt(found[1] + digits), found[3] ? BigInt(found[3]) : 10n ** BigInt(digits.length)];
  }
  function exactOf(x) {
    if (!Number.isFinite(x) || x < 0) throw Error("a number is negative, infinite or NaN");
    let below = 1n;
    while (!Number.isInteger(x)) {
      x *= 2;
      below *= 2n;
    }
    return [BigInt(x), below];
  }
  const above = (a, b) => a[0] * b[1] > b[0] * a[1];
  // near: a is b, but for what k digits of a do not show
  const near = (a, b, k) => {
    const apart = a[0] * b[1] - b[0] * a[1];
    return (apart < 0n ? -apart : apart) * 10n ** BigInt(k) <= b[0] * a[1];
  };

  $("proof-check").onclick = async () => {
    const mine = ++checks;
    delete document.documentElement.dataset.proof;
    for (const id of ["proof-verdict", "proof-wrong", "proof-lines"]) $(id).replaceChildren();
    $("proof-check").disabled = true;
    $("proof-running").hidden = false;
    $("proof-now").textContent = "Starting the checker";
    $("proof-progress").removeAttribute("value");
    const proved = { files: {} };
    try {
      const files = Object.entries(names).map(([name, id]) => new File([bytesOf(id)], name));
      const program = await compiled();
      if (mine !== checks) return;
      const code = URL.createObjectURL(new Blob([$("proof-worker").textContent], { type: "text/javascript" }));
      worker = new Worker(code);
      URL.revokeObjectURL(code);
      worker.onerror = (event) => {
        event.preventDefault();
        if (mine === checks) finish("none", "No verdict", `the checker stopped: ${event.message}`);
      };
      worker.onmessage = async ({ data: [kind, ...what] }) => {
        if (mine !== checks) return;
        if (kind === "begins") {
          const [name, done, of] = what;
          const step = Math.ceil(of / 10);
          if (done % step === 0) $("proof-now").textContent = `${name.startsWith("sample ") ? "Sample" : "Map"} ${Math.min(done + 1, of)} of ${of}`;
          $("proof-progress").max = Math.max(of, 1);
          $("proof-progress").value = done;
        } else if (kind === "line") $("proof-lines").append(item(what[0]));
        else if (kind === "file") proved.files[what[0]] = what;
        else if (kind === "bound") proved.bound = exact(what[3]);
        else if (kind === "samples") [, , , , proved.predicted, proved.radii] = what;
        else if (kind === "invalid") finish("invalid", "NOT PROVED", "The bundle does not prove what it claims.", [what[0]]);
        else if (kind === "ended") finish("none", "No verdict", `the checker stopped: ${what[0] || "no reason is known"}`);
        else if (kind === "valid") {
          worker.terminate();
          worker = null;
          let wrong;
          try {
            [proved.terms, proved.real] = what;
            proved.radii = proved.radii.map(exact);
            wrong = await compared(proved);
          } catch (error) {
            wrong = [`what the page shows cannot be read: ${error.message}`];
          }
          if (mine !== checks) return;
          if (wrong.length) finish("invalid", "NOT PROVED", "The page shows what its bundle does not prove.", wrong);
          else finish("valid", "PROVED", `The bound, and the radii and predictions of the ${proved.radii.length} carried samples. They hold for the network ${proved.terms}.`);
        }
      };
      worker.postMessage({ wasm: program, files, names: Object.keys(names), zip: false, work: 1 });
    } catch (error) {
      if (mine === checks) finish("invalid", "NOT PROVED", "What the page carries cannot be read.", [String(error.message)]);
    }
  };
  $("proof-cancel").onclick = () => {
    finish("none", "Cancelled", "There is no verdict.");
    $("proof-check").focus();
  };

  for (const button of document.querySelectorAll("[data-save]")) {
    button.onclick = () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytesOf(names[button.dataset.save])]));
      link.download = button.dataset.save;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    };
  }

  // compared lists what the page shows otherwise than it was proved.
  async function compared(proved) {
    const wrong = [];
    const demand = (holds, words) => { if (!holds) wrong.push(words); };
    const cells = (row) => [...row.cells].map((cell) => cell.textContent);
    const all = (query) => [...document.querySelectorAll(query)];

    const files = all("[data-proof-file]").map(cells);
    demand(files.length === 2, "the table of files has not two rows");
    for (const name of Object.keys(names)) {
      const said = files.filter((row) => row[0] === name);
      const [, size, digest] = proved.files[name] ?? [];
      demand(said.length === 1 && said[0][1] === String(size) && said[0][2] === digest, `${name} has another size or SHA-256 than is shown`);
    }

    const bounds = [$("proof-bound").textContent];
    const listed = all("#certificate tr").map(cells).filter((row) => row[0] === "proved Lipschitz bound");
    demand(listed.length === 1 && listed[0].length === 2, "there is not one row of the proved bound");
    demand(all("#proof-bound, #proof-level").length === 2, "bound or level stand twice");
    bounds.push(...listed.flatMap((row) => row.slice(1)));
    for (const text of bounds) demand(!above(proved.bound, exact(text)), `the bound ${text} is not proved`);
    const shownBound = exact(bounds[0]);
    demand((shownBound[0] * proved.bound[1] - proved.bound[0] * shownBound[1]) * 10n ** 9n < shownBound[1] * proved.bound[1], `the bound ${bounds[0]} is not that of the bundle`);
    const level = proved.real ? "real" : "float";
    const certified = all("#certificate tr").map(cells).filter((row) => row[0] === "level");
    demand($("proof-level").textContent.split(",")[0] === level, "the level is another one");
    demand(certified.length === 1 && (certified[0][1] === "real" || level === "float"), "the level of the certificate is not that of the proof");

    const count = proved.radii.length;
    const table = all("[data-proof-row]").map(cells);
    demand(table.length === count, "the table has another number of samples");
    const data = JSON.parse($("data").textContent);
    demand(all('[id="data"]').length === 1 && data.subjects.length === 1 && data.subjects[0].seeds.length === 1, "the data are not those of one run");
    const seed = data.subjects[0].seeds[0];
    const buffer = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    const view = { radius: new DataView(buffer(seed.radius)), prediction: new DataView(buffer(seed.prediction)), label: new DataView(buffer(seed.label)) };
    const images = all("#gallery li[data-row]");
    demand(images.length === count || images.length === 0, "the gallery has another number of samples");
    const right = [];
    const kinds = new Map();
    const named = (text) => {
      const found = /^(\d+): ([^]*)$/.exec(text);
      if (!found) throw Error("a class has no number");
      if (kinds.has(found[1]) && kinds.get(found[1]) !== found[2]) throw Error("a class has two names");
      kinds.set(found[1], found[2]);
      return [Number(found[1]), found[2]];
    };
    const rows = new Set(table.map((row) => row[0]));
    demand(rows.size === count, "a sample stands twice");
    const tensor = images.length ? samplesTensor() : null;
    for (let place = 0; place < Math.min(count, table.length); place++) {
      const [row, labelText, predictedText, radiusText] = table[place];
      if (!/^\d+$/.test(row)) throw Error("a sample has no number");
      const [label, labelName] = named(labelText);
      const [predicted, predictedName] = named(predictedText);
      const radius = proved.radii[place];
      const shown = exact(radiusText);
      const who = `sample ${row}`;
      right.push(label === proved.predicted[place]);
      demand(predicted === proved.predicted[place], `${who}: another class is predicted`);
      demand(!above(shown, radius) && near(shown, radius, 8), `${who}: the radius ${radiusText} is not that of the bundle`);
      const drawn = exactOf(view.radius.getFloat32(4 * Number(row), true));
      demand(!above(drawn, radius), `${who}: curves have a larger radius`);
      demand(view.prediction.getUint16(2 * Number(row), true) === predicted, `${who}: curves have another prediction`);
      demand(view.label.getUint16(2 * Number(row), true) === label, `${who}: curves have another label`);
      if (!images.length) continue;
      const items = images.filter((each) => each.dataset.row === row && each.querySelector("h3").textContent === `Sample ${row}`);
      if (items.length !== 1) throw Error(`${who} is not shown once`);
      const facts = [...items[0].querySelectorAll("dl.facts > dt")].map((term) => [term.textContent, term.nextElementSibling.textContent]);
      const fact = (name) => {
        const found = facts.filter((each) => each[0] === name);
        if (found.length !== 1) throw Error(`${who}: ${name} is not shown once`);
        return found[0][1];
      };
      demand(fact("label") === labelName, `${who}: another label is shown`);
      demand(fact("predicted") === predictedName + (label === predicted ? "" : " (wrong)"), `${who}: another prediction is shown`);
      if (label === predicted) {
        const below = exact(fact("radius"));
        demand(!above(below, radius), `${who}: the radius ${fact("radius")} is not proved`);
        demand(near(below, drawn, 3) || drawn[0] === below[0], `${who}: the radius ${fact("radius")} is not that of the curves`);
      } else demand(fact("radius") === "none", `${who}: a radius of a wrong prediction is shown`);
      const picture = items[0].querySelector("img");
      if (picture) demand(await same(picture, tensor, place), `${who}: the image is not the sample`);
    }

    const counts = all("[data-proof-eps]").map(cells);
    demand(counts.length > 0, "there is no certified accuracy");
    for (const [eps, text] of counts) {
      const many = proved.radii.filter((radius, place) => right[place] && above(radius, exact(eps))).length;
      demand(text === `${many} of ${count}`, `at ${eps}, ${many} of ${count} samples are certified, not ${text}`);
    }
    return wrong;
  }

  // The tensor of samples, from a bundle that the checker has read already.
  function samplesTensor() {
    const proof = JSON.parse(new TextDecoder().decode(bytesOf("proof-json")));
    const bytes = bytesOf("proof-tensors");
    const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
    const { dtype, shape, data_offsets: [from] } = header[proof.samples.inputs];
    const view = new DataView(bytes.buffer, 8 + size + from);
    const read = dtype === "F64" ? (i) => view.getFloat64(8 * i, true) : (i) => view.getFloat32(4 * i, true);
    return { shape, read };
  }

  // same says whether a picture has the pixels of a sample, to 8 bits.
  async function same(picture, { shape, read }, place) {
    const [, channels, height, width] = shape;
    const image = new Image();
    image.src = picture.src;
    await image.decode();
    if (shape.length !== 4 || image.width !== width || image.height !== height) return false;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const seen = context.getImageData(0, 0, width, height).data;
    const pixels = width * height;
    for (let i = 0; i < pixels; i++) {
      const values = [];
      for (let c = 0; c < channels; c++) values.push(read((place * channels + c) * pixels + i));
      const mean = values.reduce((a, b) => a + b, 0) / channels;
      const shown = channels === 3 ? values : [mean, mean, mean];
      for (let c = 0; c < 3; c++) {
        const value = 255 * Math.min(1, Math.max(0, shown[c]));
        if (!(Math.abs(seen[4 * i + c] - value) <= 0.51)) return false;
      }
      if (seen[4 * i + 3] !== 255) return false;
    }
    return true;
  }
})();
