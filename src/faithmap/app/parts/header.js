// What Gradio's lists of choices leave out for people who do not see them, or who use keys alone.

// A chosen method is taken out by a button that says which one, not by its place among all methods.
const name = (token) => {
  const remove = token.querySelector(".token-remove"), text = `Remove ${token.querySelector("span")?.textContent.trim()}`;
  if (remove && remove.title !== text) remove.title = text;
};

// An open list scrolls, which would make it one more stop of the tab key, on which the list closes and the focus is lost.
const mend = () => {
  document.querySelectorAll(".token").forEach(name);
  document.querySelectorAll("ul[role=listbox]:not([tabindex])").forEach((list) => list.setAttribute("tabindex", "-1"));
};

new MutationObserver(mend).observe(document.body, { childList: true, characterData: true, subtree: true });
mend();

// A button of Gradio's that is none of HTML's answers to the space bar, too.
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !event.target.matches?.('div[role="button"]')) return;
  event.preventDefault();
  event.target.click();
});
