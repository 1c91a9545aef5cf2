"use strict";
const $ = (id) => document.getElementById(id);
const element = (tag, text, className) => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

const bytes = Uint8Array.from(atob($("wasm").textContent), (c) => c.charCodeAt(0));
const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
const wasm = new Response(unpacked).arrayBuffer().then((program) => WebAssembly.compile(program));
wasm.catch(() => {}); // said when a bundle comes
const code = URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" }));

let worker = null; // of the check that runs
let checks = 0; // that were begun: what comes late from an earlier one is dropped

function finish(className, title, why) {
  worker?.terminate();
  worker = null;
  $("running").hidden = true;
  $("lines").querySelectorAll("li:not(.shown, .failed)").forEach((li) => {
    if (className === "invalid") {
      li.className = "failed";
      li.textContent = why.startsWith(li.textContent.split(":")[0]) ? why : `${li.textContent}: ${why}`;
    } else li.remove();
  });
  if (className === "invalid" && !$("lines").querySelector(".failed")) {
    $("lines").append(element("li", why, "failed"));
  }
  $("verdict").className = className;
  $("verdict").replaceChildren(element("strong", title), element("span", why));
  document.title = `${title}: onelip check`;
}

// check hands files of one folder, or one zip, to a worker.
async function check(title, files, zip) {
  worker?.terminate();
  worker = null;
  const mine = ++checks;
  $("check").hidden = false;
  $("check-title").textContent = title;
  $("verdict").className = "";
  for (const id of ["verdict", "lines", "statements", "trusted", "files"]) $(id).replaceChildren();
  $("unread").textContent = "";
  $("theorem").hidden = $("read").hidden = true;
  $("running").hidden = false;
  $("now").textContent = "Starting the checker";
  $("progress").removeAttribute("value");
  document.title = "Checking: onelip check";
  $("check").scrollIntoView({ block: "start" });
  let program;
  try {
    program = await wasm;
  } catch (error) {
    return finish("", "No verdict", `the checker cannot be started: ${error}`);
  }
  if (mine !== checks) return;
  const names = zip ? ["zip"] : files.map((file) => file.name);
  const shown = follow(new Set(zip ? [] : names));
  worker = new Worker(code);
  worker.onmessage = ({ data: [kind, ...what] }) => { if (mine === checks && worker) shown[kind](...what); };
  worker.onerror = (event) => {
    event.preventDefault();
    if (mine === checks && worker) finish("", "No verdict", `the checker stopped: ${event.message}`);
  };
  worker.postMessage({ wasm: program, files, names, zip, work: Number($("work").value) });
}

// follow is what to do with each message of a check.
function follow(unread) {
  let pending = null;
  const statements = [];
  let radii = null;
  const lines = $("lines");
  return {
    begins(what, done, of) {
      const sample = what.startsWith("sample ");
      if (!sample) $("now").textContent = `Map ${Math.min(done + 1, of)} of ${of}`;
      else if (done % Math.ceil(of / 10) === 0) $("now").textContent = `Sample ${done + 1} of ${of}`;
      $("progress").max = Math.max(of, 1);
      $("progress").value = done;
      if (pending) pending.textContent = what;
      else lines.append((pending = element("li", what)));
    },
    line(text) {
      const li = pending ?? element("li", "");
      pending = null;
      li.textContent = text;
      li.className = /^(block \d+|the network): constant|^\d+ samples/.test(text) ? "shown whole" : "shown";
      lines.append(li);
    },
    inside(name) { unread.add(name); },
    file(name, size, digest) {
      unread.delete(name);
      const row = document.createElement("tr");
      row.append(...[name, size.toLocaleString("en"), digest].map((text) => element("td", text)));
      $("files").append(row);
      $("read").hidden = false;
    },
    bound(constant, input, output) {
      statements.push(`The network of this bundle, a function f of inputs of shape ${input} with outputs of shape ${output}, `
        + `has the Lipschitz constant ${constant}: |f(x) − f(x′)| ≤ ${constant} |x − x′| for all inputs x and x′, in Euclidean norms.`);
    },
    samples(count, above, low, high) {
      radii = (output) => `${count} samples have radii from ${low} to ${high}, ${above} of them above 0: within its radius `
        + `around a sample, the predicted output ${output} is larger than every other output. A radius of 0 claims nothing.`;
    },
    valid(terms, real) {
      const trusted = [
        `This network runs elsewhere, ${terms}.`,
        "What is deployed is this network: of a network.onnx or network.pt2 in the bundle only the digest is compared.",
        "The samples are what their owner says, and so are the units of inputs.",
        "Go, and its sums and products of integers; this browser and this processor.",
        "This page: see “Whose page is this?”.",
      ];
      if (real) trusted[0] = `This network runs elsewhere, ${terms}: floating-point numbers round, which is not counted.`;
      if (radii) statements.push(radii(real ? "of f" : `that the network computes, with ${terms},`));
      $("statements").replaceChildren(...statements.map((text) => element("li", text)));
      $("trusted").replaceChildren(...trusted.map((text) => element("li", text)));
      $("theorem").hidden = false;
      listUnread();
      finish("valid", "VALID", "All that the bundle claims is proved.");
    },
    invalid(why) {
      listUnread();
      finish("invalid", "INVALID", why);
    },
    ended(why) {
      finish("", "No verdict", `the checker stopped: ${why || "no reason is known"}. A large bundle may need the program onelip-check.`);
    },
  };

  function listUnread() {
    const names = [...unread].sort();
    const more = names.length > 20 ? ` and ${names.length - 20} more` : "";
    if (names.length) $("unread").textContent = `Not part of the proof, and not read: ${names.slice(0, 20).join(", ")}${more}.`;
  }
}

// refuse says why nothing is checked.
function refuse(why) {
  checks++;
  $("check").hidden = false;
  $("check-title").textContent = "Nothing to check";
  for (const id of ["lines", "files"]) $(id).replaceChildren();
  $("theorem").hidden = $("read").hidden = true;
  finish("", "No verdict", why);
}

const isZip = (file) => /\.zip$/i.test(file.name) || file.type === "application/zip";

// given is the files beside each other, or one zip, that a reader chose.
function given(files, title) {
  if (!files.length) return refuse("There is no file in what was chosen.");
  if (files.length === 1 && isZip(files[0])) return check(files[0].name, files, true);
  return check(title, files, false);
}

$("folder").onchange = ({ target }) => {
  const all = [...target.files];
  const files = all.filter((file) => file.webkitRelativePath.split("/").length <= 2);
  given(files, all[0]?.webkitRelativePath.split("/")[0] ?? "");
  target.value = "";
};
$("zip").onchange = ({ target }) => {
  const files = [...target.files];
  if (files.length) check(files[0].name, files, true);
  target.value = "";
};
$("cancel").onclick = () => {
  finish("", "Cancelled", "There is no verdict.");
  checks++;
  $("folder").focus();
};

// inFolder is the files of a dropped folder: by handles where the browser has them, else by entries.
async function inFolder(handle, entry) {
  const files = [];
  if (handle) {
    for await (const item of handle.values()) if (item.kind === "file") files.push(await item.getFile());
    return files;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return files;
    for (const item of some.filter((each) => each.isFile)) {
      files.push(await new Promise((done, failed) => item.file(done, failed)));
    }
  }
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  // all at once: after the first await the items are gone
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file").map((item) => ({
    file: item.getAsFile(),
    entry: item.webkitGetAsEntry?.(),
    handle: item.getAsFileSystemHandle?.(),
  }));
  try {
    if (items.length === 1 && items[0].entry?.isDirectory) {
      const { entry, handle } = items[0];
      const files = await inFolder(handle && await handle.catch(() => null), entry);
      return given(files, entry.name);
    }
    if (items.some(({ entry }) => entry?.isDirectory)) return refuse("Drop one folder at a time.");
    given(items.map(({ file }) => file), "Dropped files");
  } catch {
    refuse("This browser does not let a page read a dropped folder: choose it by the button, or drop a zip.");
  }
});
document.documentElement.dataset.ready = "";
