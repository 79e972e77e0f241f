const bar = element.querySelector("progress");
const line = element.querySelector("p");
const tell = () => {
  const value = props.value || {};
  bar.hidden = value.share === null || value.share === undefined;
  bar.value = value.share || 0;
  line.textContent = value.text || "";
  line.classList.toggle("fm-error", Boolean(value.error));
};
watch("value", tell);
tell();
