// The viewer: up to four maps of one photograph, and one scrubber that plays deletion and insertion with all of them.
// `element`, `props` and `watch` are Gradio's. The server is never asked.

const root = element.querySelector(".faithmap-viewer");
const group = `show-${Math.random().toString(36).slice(2)}`;
const state = { alone: false, opacity: null, colours: "plasma", beside: null, position: null, point: null };
const TICK = 140, LARGE = 720, SMALL = 480;

const choice = (text, alone) => {
  const input = make("input", { type: "radio", name: group, checked: alone === state.alone });
  input.addEventListener("change", () => { state.alone = alone; redraw(); });
  return make("label", {}, input, make("span", {}, text));
};
const opacity = make("input", { type: "range", min: 0, max: 100, step: 1, className: "opacity" });
const opacityShown = make("output", {});
const palette = make("select", { className: "palette" });
const beside = make("input", { type: "checkbox", className: "beside" });
const bar = make("div", { className: "bar" },
  make("div", { className: "segments", role: "radiogroup", "aria-label": "Show" }, choice("On the photograph", false), choice("Map alone", true)),
  make("label", { className: "field" }, make("span", {}, "Opacity"), opacity, opacityShown),
  make("label", { className: "field" }, make("span", {}, "Colours"), palette),
  make("label", { className: "field" }, beside, make("span", {}, "Photograph beside it")));

const maps = make("div", { className: "maps" });
const ramp = make("canvas", { width: 256, height: 1, role: "presentation" });
const legend = make("p", { className: "legend soft" }, "less important", ramp, "more important",
  make("span", { className: "note" }, "Each map has its own scale. Point at one for its values."));
const slider = make("input", { type: "range", min: 0, step: 1, className: "scrubber", "aria-label": "Share of the most important cells" });
const play = make("button", { type: "button", className: "play" }, "Play");
const sliderShown = make("output", { className: "share" });
const scrub = make("div", { className: "scrub" }, play, slider, sliderShown);
const plays = make("div", { className: "plays" });
const doubt = make("section", { className: "doubt" }, make("h3", {}, "Does the decision rest on it?"),
  make("p", { className: "soft" }, "The most important cells go first: removed from what the model saw, and alone on its blurred copy. " +
    "If the map is right, the score falls fast when they are removed, and rises fast when they alone are shown."),
  scrub, plays);
const agreement = make("section", { className: "agreement" });
const said = make("p", { className: "spoken", role: "status" });
const empty = make("p", { className: "soft empty" }, "The map appears here.");
const body = make("div", { className: "body" }, bar, maps, legend, doubt, agreement);
root.append(empty, body, said);

let scene = null, pictures = {}, figures = [], grounds = [], turns = 0, waiting = false, playing = null;

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

// Arrow keys go a fiftieth of the photograph, with shift a tenth; Home goes to the highest place.
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
  said.textContent = reading(one.panel, scene, place);
}

// The same place in all pictures.
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
  const cautions = [...(panel.flaw ? [`The map holds ${panel.flaw}.`] : []), ...panel.warnings];
  if (cautions.length) one.more.append(make("ul", { className: "warnings", "aria-label": "Warnings" }, ...cautions.map((text) => make("li", {}, text))));
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
  figures[0].whole.hidden = !state.beside;
  maps.style.setProperty("--columns", figures.length - (state.beside ? 0 : 1));
}

// Everything that the scrubber moves.
function scrubbed() {
  waiting = false;
  if (!scene) return;
  grounds.slice(0, scene.panels.length).forEach((ground) => ground.play(state.position));
  sliderShown.textContent = `${Math.round((100 * state.position) / scene.steps)} %`;
  slider.setAttribute("aria-valuetext", `${sliderShown.textContent} of the cells`);
}

function soon() {
  if (!waiting) requestAnimationFrame(scrubbed);
  waiting = true;
}

function stop() {
  clearInterval(playing);
  playing = null;
  play.textContent = "Play";
}

function start() {
  if (state.position >= scene.steps) state.position = 0;
  play.textContent = "Pause";
  playing = setInterval(() => {
    state.position++;
    slider.value = state.position;
    soon();
    if (state.position >= scene.steps) stop();
  }, TICK);
}

async function decoded(given) {
  const load = async (uri) => {
    const picture = new Image();
    picture.src = uri;
    await ready(picture);
    return picture;
  };
  const [photo, view, blurred] = await Promise.all([given.photo, given.view, given.blurred].map(load));
  const share = Math.min(1, (given.panels.length > 2 ? SMALL : LARGE) / Math.max(...given.size));
  const [height, width] = given.size.map((side) => Math.max(1, Math.round(side * share)));
  const seen = [view, blurred].map((picture) => pixelsOf(picture, given.width, given.height));
  return { photo: pixelsOf(photo, width, height), view: seen[0], blurred: seen[1] };
}

// A new scene: what was chosen stays as it was.
async function show() {
  const given = props.value ? JSON.parse(JSON.stringify(props.value)) : null, turn = ++turns;
  const taken = given && (await decoded(given));
  if (turn !== turns) return;
  [scene, pictures] = [given, taken];
  body.hidden = !scene;
  empty.hidden = !!scene;
  if (!scene) {
    stop();
    root.dataset.ready = "empty";
    return;
  }
  const panels = scene.panels.map((panel) => unpacked(panel, scene));
  settle(panels);
  const all = [null, ...panels, ...(scene.difference ? [differing(...panels)] : [])];
  while (figures.length < all.length) figures.push(figure(all[figures.length]));
  figures.length = all.length;
  figures.forEach((one, i) => { one.ramp = null; describeFigure(one, all[i]); });
  arrange(maps, figures);
  maps.dataset.count = all.length - 1;
  while (grounds.length < panels.length) grounds.push(playground());
  panels.forEach((panel, i) => grounds[i].fill(panel, scene, pictures, rangeOf(panel, panels)));
  arrange(plays, grounds.slice(0, panels.length));
  plays.dataset.count = panels.length;
  plays.style.setProperty("--columns", panels.length);
  agree(panels);
  redraw();
  point(null);
  scrubbed();
  root.dataset.ready = String(turn);
}

// Nodes that are there already are not moved, for that would take the focus from them.
function arrange(place, parts) {
  const wanted = parts.map((part) => part.whole);
  if (wanted.length !== place.children.length || wanted.some((one, i) => one !== place.children[i])) place.replaceChildren(...wanted);
}

// Curves of one class are drawn on one scale.
function rangeOf(panel, panels) {
  return panels.filter((other) => other.target === panel.target && measured(other)).flatMap((other) => GAMES.flatMap((game) => other.games[game].scores));
}

function settle(panels) {
  const before = Number(slider.max) || 1;
  state.position = state.position === null ? Math.round(scene.steps / 10) : Math.round((state.position / before) * scene.steps);
  slider.max = scene.steps;
  slider.value = state.position;
  state.opacity ??= Math.round(100 * scene.display.opacity);
  beside.checked = state.beside ??= panels.length < 3 && window.innerWidth > 760;
  if (!palette.options.length) palette.append(...Object.keys(scene.display.maps).map((name) => make("option", { value: name }, name)));
}

function agree(panels) {
  agreement.hidden = !scene.agreement;
  if (!scene.agreement) return agreement.replaceChildren();
  agreement.replaceChildren(make("h3", {}, "Do the maps agree?"),
    make("p", { className: "soft" }, "Rank correlation of every two maps: 1 is the same order, 0 no relation, \u22121 the reverse. Maps can agree and be wrong together."),
    make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "Agreement" }, agreeing(panels.map((panel) => panel.name), scene.agreement)));
}

opacity.addEventListener("input", () => { state.opacity = Number(opacity.value); redraw(); });
palette.addEventListener("change", () => { state.colours = palette.value; redraw(); });
beside.addEventListener("change", () => { state.beside = beside.checked; redraw(); });
slider.addEventListener("input", () => { stop(); state.position = Number(slider.value); soon(); });
play.addEventListener("click", () => (playing ? stop() : start()));
watch("value", show);
show();
