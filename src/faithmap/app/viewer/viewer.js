const root = element.querySelector(".faithmap-viewer");
const draw = () => { root.textContent = props.value ? props.value.panels.map((panel) => panel.name).join(", ") : ""; };
watch("value", draw);
draw();
