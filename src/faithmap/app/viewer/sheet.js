// The images of a run, one line each; text is always set as text. `element`, `props`, `watch` and `trigger` are Gradio's.

const list = element.querySelector(".faithmap-sheet");
let turns = 0;

function add(parent, kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

async function photograph(line) {
  const picture = new Image();
  picture.src = line.picture;
  await ready(picture);
  return pixelsOf(picture, line.width, line.height);
}

function drawThumb(canvas, photo, map, display) {
  const [low, high] = map.ends || [0, 1];
  const cells = map.ends ? new Float32Array(bytes(map.values).buffer) : null;
  const scaled = cells && cells.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
  const axis = (count, pixels) => stops(aligned(count, pixels), pixelsAlong(pixels));
  const values = scaled && spread(scaled, map.columns, axis(map.rows, canvas.height), axis(map.columns, canvas.width));
  const look = { table: bytes(display.table), saturation: display.saturation };
  paint(canvas, (i, out, at) => heated(photo, out, at, values ? values[i] : 0, values ? display.opacity * values[i] : 0, look));
}

function lineOf(line, display) {
  const item = document.createElement("li");
  const button = add(item, "button", "", undefined);
  button.type = "button";
  button.dataset.index = line.index;
  button.addEventListener("click", () => {
    list.querySelectorAll("[aria-current]").forEach((other) => other.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    trigger("click", { index: line.index });
  });
  const words = add(button, "span", "words");
  add(words, "strong", "", line.name);
  add(words, "small", "", line.problem || line.facts);
  const pictures = add(button, "span", "thumbs");
  const drawn = [null, ...line.maps].map((map) => {
    const cell = add(pictures, "span", "thumb");
    const canvas = add(cell, "canvas", "");
    [canvas.width, canvas.height] = [line.width || 112, line.height || 112];
    canvas.hidden = !line.picture;
    add(cell, "small", "", map ? map.name : "photograph");
    if (map) add(cell, "b", "", map.score);
    return [canvas, map];
  });
  if (line.picture) photograph(line).then((photo) => drawn.forEach(([canvas, map]) => {
    if (map) drawThumb(canvas, photo, map, display);
    else canvas.getContext("2d").putImageData(photo, 0, 0);
  }));
  return item;
}

function showLines() {
  const given = props.value ? JSON.parse(JSON.stringify(props.value)) : { lines: [] };
  list.replaceChildren(...given.lines.map((line) => lineOf(line, given.display)));
  list.dataset.ready = String(++turns);
}

watch("value", showLines);
showLines();
