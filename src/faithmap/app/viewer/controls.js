// What the viewer is made of, and what was chosen. `element` is Gradio's, the viewer's place in the page.

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
const doubt = make("section", { className: "doubt" }, make("h2", {}, "Does the decision rest on it?"),
  make("p", { className: "soft" }, "The most important cells go first: removed from what the model saw, and alone on its blurred copy. " +
    "If the map is right, the score falls fast when they are removed, and rises fast when they alone are shown."),
  scrub, plays);
const agreement = make("section", { className: "agreement" });
const said = make("p", { className: "spoken", role: "status" });
const empty = make("p", { className: "soft empty" }, "The map appears here.");
const body = make("div", { className: "body" }, bar, maps, legend, doubt, agreement);
root.append(empty, body, said);

let scene = null, pictures = {}, figures = [], grounds = [], turns = 0, waiting = false, playing = null;
