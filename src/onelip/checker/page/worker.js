// After Go's wasm_exec.js, in a worker: one check, then the worker ends.
"use strict";
let last = ""; // of what Go writes for itself, as when it has no more memory
globalThis.fs.writeSync = (_, bytes) => {
  last = (last + new TextDecoder().decode(bytes)).slice(-2000);
  return bytes.length;
};

onmessage = async ({ data: { wasm, files, names, zip, work } }) => {
  const reader = new FileReaderSync();
  globalThis.onelip = {
    names, zip, work,
    sizes: files.map((file) => file.size),
    tell: (...what) => postMessage(what),
    read(index, from, length) {
      try {
        return new Uint8Array(reader.readAsArrayBuffer(files[index].slice(from, from + length)));
      } catch {
        return null;
      }
    },
  };
  const go = new Go();
  go.exit = (status) => { if (status !== 0) last ||= `exit status ${status}`; };
  let why = "";
  try {
    await go.run(await WebAssembly.instantiate(wasm, go.importObject));
  } catch (error) {
    why = String(error);
  }
  postMessage(["ended", last.split("\n")[0] || why]);
};
