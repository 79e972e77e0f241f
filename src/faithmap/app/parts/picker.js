const root = element.querySelector(".fm-picker");
const photo = root.querySelector(".fm-photo");
const drop = root.querySelector(".fm-drop");
const input = root.querySelector("input");
const refusal = root.querySelector(".fm-refusal");
const samples = props.samples;
const limit = props.limit;
let shown = null;

const refuse = (line) => {
  refusal.textContent = line;
};

const take = (token, name, source) => {
  if (shown) URL.revokeObjectURL(shown);
  shown = source.startsWith("blob:") ? source : null;
  photo.src = source;
  refuse("");
  props.value = { token, name };
  trigger("change");
};

const send = async (file) => {
  if (file.size > limit) {
    refuse(`${file.name}: larger than the limit of ${limit / 2 ** 20} MB; give a smaller file`);
    return;
  }
  drop.setAttribute("aria-busy", "true");
  try {
    const headers = { "X-Name": encodeURIComponent(file.name || "photo.png") };
    const answer = await fetch(new URL("photo", document.baseURI), { method: "POST", body: file, headers });
    const result = await answer.json();
    if (result.token) take(result.token, result.name, URL.createObjectURL(file));
    else refuse(result.error);
  } catch {
    refuse("the photograph could not be sent; try again");
  } finally {
    drop.removeAttribute("aria-busy");
    input.value = "";
  }
};

const first = (list) => Array.from(list || []).find((file) => file.type.startsWith("image/")) || (list || [])[0];

input.addEventListener("change", () => first(input.files) && send(first(input.files)));
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("fm-over", name === "dragover");
    if (name === "drop" && first(event.dataTransfer.files)) send(first(event.dataTransfer.files));
  });
}
document.addEventListener("paste", (event) => {
  const file = first(event.clipboardData && event.clipboardData.files);
  if (file && root.isConnected) send(file);
});

for (const [name, source] of Object.entries(samples)) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = name;
  const picture = document.createElement("img");
  picture.src = source;
  picture.alt = `the sample photograph ${name}`;
  button.append(picture);
  button.addEventListener("click", () => take(name, name, source));
  root.querySelector(".fm-samples").append(button);
}
photo.src = samples[Object.keys(samples)[0]];
