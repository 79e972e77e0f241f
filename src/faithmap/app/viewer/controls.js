// The elements of the viewer, and the visitor's choices. `element` is Gradio's, the viewer's place in the page.

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
  make("span", { className: "note" }, "Each map has its own scale. Point at a map to read its values."));
const slider = make("input", { type: "range", min: 0, step: 1, className: "scrubber", "aria-label": "Share of the most important cells" });
const play = make("button", { type: "button", className: "play" }, "Play");
const sliderShown = make("output", { className: "share" });
const scrub = make("div", { className: "scrub" }, play, slider, sliderShown);
const steps = make("div", { className: "steps" });
const evaluation = make("section", { className: "evaluation" }, make("h2", {}, "Does the decision depend on these cells?"),
  make("p", { className: "soft" }, "Deletion removes the most important cells first; insertion adds them first to a blurred copy. " +
    "If the map is faithful, the score falls fast in deletion and rises fast in insertion."),
  scrub, steps);
const agreement = make("section", { className: "agreement" });
const readout = make("p", { className: "spoken", role: "status" });
const empty = make("p", { className: "soft empty" }, "The map appears here.");
const body = make("div", { className: "body" }, bar, maps, legend, evaluation, agreement);
root.append(empty, body, readout);

let scene = null, pictures = {}, figures = [], evaluations = [], turns = 0, waiting = false, playing = null;
