// Figures: the photograph with each map, the position of the pointer, and everything that opacity and colours change.

// A figure of the photograph with or without a map.
function figure(panel) {
  const canvas = make("canvas", { tabIndex: panel ? 0 : -1, role: "img" });
  const cross = make("i", { className: "cross", hidden: true });
  const value = make("p", { className: "reading", hidden: true });
  const caption = make("figcaption", {}, make("strong", {}), make("span", { className: "soft" }));
  const more = make("div", { className: "more" });
  const whole = make("figure", { className: "map" }, caption, make("div", { className: "frame" }, canvas, cross, value), more);
  const one = { whole, canvas, cross, value, caption, more };
  for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, (event) => {
    const box = canvas.getBoundingClientRect();
    point({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
  });
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch" && document.activeElement !== canvas) point(null);
  });
  canvas.addEventListener("focus", () => { if (!state.point && one.panel && canvas.matches(":focus-visible")) speak(one, highest(one.panel, scene)); });
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("keydown", (event) => walk(one, event));
  return one;
}

// Arrow keys move by 2 % of the photograph, with shift by 10 %; Home moves to the highest value.
function walk(one, event) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!one.panel || (!way && event.key !== "Home")) return;
  event.preventDefault();
  const from = state.point || highest(one.panel, scene), far = event.shiftKey ? 0.1 : 0.02;
  const within = (share) => Math.min(0.9999, Math.max(0, share));
  speak(one, way ? { x: within(from.x + far * way[0]), y: within(from.y + far * way[1]) } : highest(one.panel, scene));
}

function speak(one, place) {
  point(place);
  readout.textContent = reading(one.panel, scene, place);
}

// Marks the same position in all figures.
function point(place) {
  state.point = place;
  for (const { cross, value, panel } of figures) {
    cross.hidden = !place;
    if (place) [cross.style.left, cross.style.top] = [`${100 * place.x}%`, `${100 * place.y}%`];
    value.textContent = panel && place ? reading(panel, scene, place) : "";
    value.hidden = !value.textContent;
    value.classList.toggle("above", !!place && place.y > 0.6);
  }
}

function describeFigure(one, panel) {
  one.panel = panel;
  one.values = panel && onPhoto(panel, scene, pictures.photo.width, pictures.photo.height);
  [one.canvas.width, one.canvas.height] = [pictures.photo.width, pictures.photo.height];
  one.whole.style.setProperty("--ratio", pictures.photo.width / pictures.photo.height);
  const [name, target] = one.caption.children;
  name.textContent = panel ? panel.name : "Photograph";
  target.textContent = panel ? panel.target : "";
  one.canvas.setAttribute("aria-label", panel ? describe(panel, scene) : "The photograph");
  one.more.replaceChildren();
  if (!panel) return;
  if (panel.signed) {
    const [first, second] = scene.panels;
    const side = first.target === second.target ? "name" : "target";
    const bar = make("canvas", { width: 256, height: 1, role: "presentation" });
    one.ramp = bar;
    one.more.append(make("p", { className: "sides soft" }, make("span", {}, `more for ${second[side]}`), bar, make("span", {}, `more for ${first[side]}`)),
      make("p", { className: "soft" }, `The largest difference is ${Math.round(100 * panel.ends[1])} % of a map's scale.`));
  }
  const warnings = [...(panel.flaw ? [`The map holds ${panel.flaw}.`] : []), ...panel.warnings];
  if (warnings.length) one.more.append(make("ul", { className: "warnings", "aria-label": "Warnings" }, ...warnings.map((text) => make("li", {}, text))));
  if (panel.facts.length) {
    const pairs = panel.facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)));
    one.more.append(make("dl", { className: "facts" }, ...pairs));
  }
}

function strip(canvas, table) {
  paint(canvas, (i, out, at) => { for (let c = 0; c < 3; c++) out[at + c] = table[3 * i + c]; });
}

// Everything that opacity and colours change.
function redraw() {
  if (!scene) return;
  const display = scene.display, look = { ...display, alone: state.alone, opacity: state.opacity / 100 };
  look.table = bytes(display.maps[state.colours]);
  look.diverging = bytes(display.diverging);
  for (const one of figures) {
    if (one.panel) drawMap(one.canvas, pictures.photo, one.values, one.panel, look);
    else one.canvas.getContext("2d").putImageData(pictures.photo, 0, 0);
    if (one.ramp) strip(one.ramp, look.diverging);
  }
  strip(ramp, look.table);
  opacity.disabled = state.alone;
  opacity.value = state.opacity;
  opacityShown.textContent = `${state.opacity} %`;
  figures[0].whole.hidden = !beside.checked;
  maps.style.setProperty("--columns", figures.length - (beside.checked ? 0 : 1));
}

opacity.addEventListener("input", () => { state.opacity = Number(opacity.value); redraw(); });
palette.addEventListener("change", () => { state.colours = palette.value; redraw(); });
beside.addEventListener("change", () => { state.beside = beside.checked; redraw(); });
