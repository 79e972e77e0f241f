const link = element.querySelector("a");
const give = () => {
  const value = props.value || {};
  element.querySelector("p").hidden = !value.word;
  if (!value.word) return;
  link.href = new URL(`parcel/${encodeURIComponent(value.word)}`, document.baseURI).href;
  link.download = value.name;
  link.textContent = `Download ${value.name}`;
  link.click();
};
watch("value", give);
