// On paper every page is light, whatever it is on the screen.
const root = document.documentElement;
let onScreen = root.dataset.theme;
addEventListener("beforeprint", () => {
  onScreen = root.dataset.theme;
  root.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  root.dataset.theme = onScreen;
});
