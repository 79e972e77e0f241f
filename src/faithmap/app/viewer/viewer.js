// The viewer: up to four maps of one photograph, and one slider that steps through deletion and insertion of all of them.
// `props` and `watch` are Gradio's. No interaction sends a request.

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

// Shows a new scene; the visitor's choices are kept.
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
  while (evaluations.length < panels.length) evaluations.push(evaluationOf());
  panels.forEach((panel, i) => evaluations[i].fill(panel, scene, pictures, rangeOf(panel, panels)));
  arrange(steps, evaluations.slice(0, panels.length));
  steps.dataset.count = panels.length;
  steps.style.setProperty("--columns", panels.length);
  agree(panels);
  redraw();
  point(null);
  scrubbed();
  root.dataset.ready = String(turn);
}

// Existing nodes are not moved: they would lose the focus.
function arrange(place, parts) {
  const wanted = parts.map((part) => part.whole);
  if (wanted.length !== place.children.length || wanted.some((one, i) => one !== place.children[i])) place.replaceChildren(...wanted);
}

// Curves of one class have one scale.
function rangeOf(panel, panels) {
  return panels.filter((other) => other.target === panel.target && measured(other)).flatMap((other) => CURVES.flatMap((kind) => other.curves[kind].scores));
}

function settle(panels) {
  const before = Number(slider.max) || 1;
  state.position = state.position === null ? Math.round(scene.steps / 10) : Math.round((state.position / before) * scene.steps);
  slider.max = scene.steps;
  slider.value = state.position;
  state.opacity ??= Math.round(100 * scene.display.opacity);
  beside.checked = state.beside ?? (panels.length === 1 && window.innerWidth > 760);
  if (!palette.options.length) palette.append(...Object.keys(scene.display.maps).map((name) => make("option", { value: name }, name)));
}

function agree(panels) {
  agreement.hidden = !scene.agreement;
  if (!scene.agreement) return agreement.replaceChildren();
  agreement.replaceChildren(make("h2", {}, "Do the maps agree?"),
    make("p", { className: "soft" }, "Rank correlation of every two maps: 1 for the same order, 0 for no relation, \u22121 for the reverse. Maps can agree and all be wrong."),
    make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": "Agreement" }, agreementTable(panels.map((panel) => panel.name), scene.agreement)));
}

watch("value", show);
show();
