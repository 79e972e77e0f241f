// Makes Gradio's dropdowns accessible by screen reader and keyboard.

// The button that removes a chosen method names the method, not its number among all methods.
const name = (token) => {
  const remove = token.querySelector(".token-remove"), text = `Remove ${token.querySelector("span")?.textContent.trim()}`;
  if (remove && remove.title !== text) remove.title = text;
};

// An open list scrolls, so that the tab key would focus it; the list would then close, and the focus be lost.
const mend = () => {
  document.querySelectorAll(".token").forEach(name);
  document.querySelectorAll("ul[role=listbox]:not([tabindex])").forEach((list) => list.setAttribute("tabindex", "-1"));
};

new MutationObserver(mend).observe(document.body, { childList: true, characterData: true, subtree: true });
mend();

// Gradio's buttons that are not HTML buttons also react to the space bar.
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !event.target.matches?.('div[role="button"]')) return;
  event.preventDefault();
  event.target.click();
});
