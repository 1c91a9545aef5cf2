([kind, at, by]) => {
  const $ = (id) => document.getElementById(id);
  const undo = [];
  const text = (node, to) => {
    const was = node.textContent;
    if (was === to) throw Error('nothing changed');
    node.textContent = to;
    undo.push(() => node.textContent = was);
  };
  const bytes = (id) => Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const coded = (b) => { let s = ''; for (const c of b) s += String.fromCharCode(c); return btoa(s); };
  const all = (query) => [...document.querySelectorAll(query)];
  const pick = (list) => list[Math.floor(at * list.length)];
  const flip = (id) => {
    const b = bytes(id);
    b[Math.floor(at * b.length)] ^= 1 + Math.floor(by * 255);
    text($(id), coded(b));
  };
  const up = (t) => {  // a larger decimal number
    const digits = [...[...t].keys()].filter((i) => /[0-8]/.test(t[i]));
    const i = pick(digits);
    return t.slice(0, i) + (Number(t[i]) + 1) + t.slice(i + 1);
  };
  const down = (t) => {
    const i = pick([...[...t].keys()].filter((i) => /[1-9]/.test(t[i])));
    return t.slice(0, i) + (Number(t[i]) - 1) + t.slice(i + 1);
  };
  const hexed = async (change) => {  // a claim, behind digests that fit
    const p = JSON.parse(new TextDecoder().decode(bytes('proof-json')));
    change(p);
    const b = new TextEncoder().encode(JSON.stringify(p));
    const d = new Uint8Array(await crypto.subtle.digest('SHA-256', b));
    text($('proof-json'), coded(b));
    const row = document.querySelector('[data-proof-file="proof.json"]');
    text(row.cells[1], String(b.length));
    text(row.cells[2], [...d].map((x) => x.toString(16).padStart(2, '0')).join(''));
  };
  const scaled = (hex, s) => {  // of a hexadecimal number, by its exponent or a digit
    const [, a, e] = /^(.*)p([+-]\d+)$/.exec(hex);
    return `${a}p${Number(e) + s}`;
  };
  const data = (change) => {
    const d = JSON.parse($('data').textContent);
    change(d.subjects[0].seeds[0]);
    text($('data'), JSON.stringify(d));
  };
  const carried = Number(pick(all('[data-proof-row]')).dataset.proofRow);
  const view = (seed, name, change) => {
    const b = Uint8Array.from(atob(seed[name]), (c) => c.charCodeAt(0));
    change(new DataView(b.buffer));
    seed[name] = coded(b);
  };
  const gallery = (name) => all('dl.facts dt').filter((t) => t.textContent === name)
    .map((t) => t.nextElementSibling);
  const kinds = {
    weights: () => flip('proof-tensors'),
    claims: () => flip('proof-json'),
    bound: () => hexed((p) => p.bound = scaled(p.bound, -1)),
    radius: () => hexed((p) => {
      const r = p.samples.radii, i = pick([...r.keys()].filter((i) => parseFloat(r[i].slice(3)) || r[i] !== '0x0.0p+0'));
      r[i] = scaled(r[i], 1 + Math.floor(3 * by));
    }),
    prediction: () => hexed((p) => {
      const i = pick([...p.samples.predictions.keys()]);
      p.samples.predictions[i] = (p.samples.predictions[i] + 1) % 3;
    }),
    shownBound: () => text($('proof-bound'), down($('proof-bound').textContent)),
    tableBound: () => {
      const c = all('#certificate tr').find((r) => r.cells[0].textContent === 'proved Lipschitz bound').cells[1];
      text(c, down(c.textContent));
    },
    shownRadius: () => { const c = pick(all('[data-proof-row]')).cells[3]; text(c, up(c.textContent)); },
    shownClass: () => { const c = pick(all('[data-proof-row]')).cells[2]; text(c, up(c.textContent)); },
    galleryRadius: () => { const c = pick(gallery('radius').filter((c) => c.textContent !== 'none')); text(c, up(c.textContent)); },
    galleryClass: () => { const c = pick(gallery('predicted')); text(c, c.textContent + '!'); },
    count: () => { const c = pick(all('[data-proof-eps]')).cells[1]; text(c, up(c.textContent)); },
    digest: () => {
      const c = pick(all('[data-proof-file]')).cells[2], i = Math.floor(by * 64), t = c.textContent;
      text(c, t.slice(0, i) + (t[i] === '0' ? '1' : '0') + t.slice(i + 1));
    },
    curveRadius: () => data((s) => view(s, 'radius', (v) => v.setFloat32(4 * carried, v.getFloat32(4 * carried, true) + 10 + by, true))),
    curveClass: () => data((s) => view(s, 'prediction', (v) => v.setUint16(2 * carried, 9, true))),
    number: () => { const c = pick(all('[data-proof-row]')).cells[3]; text(c, ['NaN', 'Infinity', '-1', '1e3', '', ' 1'][Math.floor(6 * by)]); },
    image: () => {
      const list = all('#gallery img[alt^="test sample"]'), i = pick(list), j = list[(list.indexOf(i) + 1) % list.length];
      const was = i.src;
      i.src = j.src;
      undo.push(() => i.src = was);
    },
    removed: () => {
      const r = pick(all('#gallery li[data-row], [data-proof-row], [data-proof-file]')), after = r.nextSibling, over = r.parentNode;
      r.remove();
      undo.push(() => over.insertBefore(r, after));
    },
    twice: () => {
      const r = pick(all('#proof-json, #proof-bound, #data, [data-proof-row], #gallery li[data-row]'));
      const copy = r.cloneNode(true);
      r.after(copy);
      undo.push(() => copy.remove());
    },
  };
  return Promise.resolve(kinds[kind]()).then(() => { window.undo = () => { for (const u of undo.reverse()) u(); }; });
}
