// A map on the original photograph, and its value at a position.

// An element with its properties or attributes and its children. Text is always set as text.
function make(kind, settings = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(settings)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A panel's numbers, and its map as a value for each pixel of the model's input.
function unpacked(panel, scene) {
  const values = new Float32Array(bytes(panel.values).buffer);
  const down = stops(panel.rows, pixelsAlong(scene.height)), across = stops(panel.columns, pixelsAlong(scene.width));
  const field = spread(values, panel.columns.length, down, across);
  const [rows, columns] = panel.ranked;
  return { ...panel, field, order: { rows, columns, places: new Int32Array(bytes(panel.places).buffer) } };
}

function scaled(value, [low, high]) {
  return Math.min(1, Math.max(0, (value - low) / (high - low)));
}

// The first map minus the second, each scaled as it is drawn. The scale ends at the largest difference, but at least at 0.1.
function differing(first, second) {
  const flaw = first.flaw || second.flaw;
  const field = flaw ? first.field : first.field.map((value, i) => scaled(value, first.ends) - scaled(second.field[i], second.ends));
  const most = field.reduce((found, value) => Math.max(found, Math.abs(value)), 0.1);
  return { name: "Difference", target: "", field, flaw, ends: [-most, most], signed: true, warnings: [], facts: [] };
}

// Positions of pixels of the photograph in the model's input; null outside of it.
function seenAt(share, start, length, pixels) {
  const there = (share - start) / length;
  return there < 0 || there > 1 ? null : Math.min(pixels - 1, Math.max(0, there * pixels - 0.5));
}

// A panel's map as a value for each pixel of the photograph; NaN outside of the model's input.
function onPhoto(panel, scene, width, height) {
  const [top, left, tall, wide] = scene.window;
  const rows = pixelsAlong(height).map((y) => seenAt((y + 0.5) / height, top, tall, scene.height));
  const columns = pixelsAlong(width).map((x) => seenAt((x + 0.5) / width, left, wide, scene.width));
  const axis = (points, pixels) => stops(pixelsAlong(pixels), points.map((point) => point ?? 0));
  const values = spread(panel.field, scene.width, axis(rows, scene.height), axis(columns, scene.width));
  rows.forEach((y, i) => columns.forEach((x, j) => { if (y === null || x === null) values[i * width + j] = NaN; }));
  return values;
}

// Draws the map on the photograph, or alone.
function drawMap(canvas, photo, values, panel, look) {
  paint(canvas, (i, out, at) => {
    const value = panel.flaw ? 0 : scaled(values[i], panel.ends);
    if (Number.isNaN(values[i])) {
      const grey = luma(photo, at);
      out.fill(look.alone ? 208 : grey + look.paleness * (255 - grey), at, at + 3);
    } else {
      const strength = panel.flaw ? 0 : look.alone ? 1 : look.opacity * (panel.signed ? Math.abs(2 * value - 1) : value);
      heated(photo, out, at, value, strength, { table: panel.signed ? look.diverging : look.table, saturation: look.saturation });
    }
  });
}

// The value at a position of the photograph, and the share of the map that is lower; null outside of the model's input.
function valueAt(panel, scene, { x, y }) {
  const [top, left, tall, wide] = scene.window;
  const row = seenAt(y, top, tall, scene.height), column = seenAt(x, left, wide, scene.width);
  if (row === null || column === null) return null;
  const at = (centre, pixels) => stops(pixelsAlong(pixels), [centre]);
  const [value] = spread(panel.field, scene.width, at(row, scene.height), at(column, scene.width));
  panel.sorted ||= Float32Array.from(panel.field).sort();
  let low = 0, high = panel.sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (panel.sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return { value, below: low / panel.sorted.length };
}

// The position of the highest value, as a share of the photograph.
function highest(panel, scene) {
  const [top, left, tall, wide] = scene.window;
  let best = 0;
  panel.field.forEach((value, i) => { if (value > panel.field[best]) best = i; });
  const part = (pixel, pixels, start, length) => Math.min(1, Math.max(0, start + (length * (pixel + 0.5)) / pixels));
  return {
    x: part(best % scene.width, scene.width, left, wide),
    y: part(Math.floor(best / scene.width), scene.height, top, tall),
  };
}

function reading(panel, scene, point) {
  if (panel.flaw) return "";
  const found = valueAt(panel, scene, point);
  if (!found) return "Not part of the model's input";
  if (panel.signed) return `${found.value.toFixed(2).replace("-", "\u2212")} here`;
  return `${Number(found.value.toPrecision(3))} here, higher than ${Math.floor(100 * found.below)} % of the map`;
}

function describe(panel, scene) {
  if (panel.flaw) return `${panel.name}: the map holds ${panel.flaw}`;
  const { x, y } = highest(panel, scene);
  const place = `${Math.round(100 * x)} % from the left and ${Math.round(100 * y)} % from the top`;
  if (panel.signed) return `Difference of the two maps, strongest for the first ${place}`;
  return `Map of ${panel.name} for ${panel.target}, highest ${place}. Arrow keys read its values`;
}
