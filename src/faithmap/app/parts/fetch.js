const link = element.querySelector("a");
const offer = () => {
  const value = props.value || {};
  element.querySelector("p").hidden = !value.token;
  if (!value.token) return;
  link.href = new URL(`download/${encodeURIComponent(value.token)}`, document.baseURI).href;
  link.download = value.name;
  link.textContent = `Download ${value.name}`;
  link.click();
};
watch("value", offer);
