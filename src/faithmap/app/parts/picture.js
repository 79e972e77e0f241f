const figure = element.querySelector("figure");
const draw = () => {
  const value = props.value || {};
  figure.hidden = !value.src;
  figure.querySelector("img").src = value.src || "data:,";
  figure.querySelector("img").alt = value.words || "";
  figure.querySelector("figcaption").textContent = value.words || "";
};
watch("value", draw);
draw();
