// Find the places of live figures on a page and fill each with its module; without scripts, or if a
// module fails, the still figure above it stands.
for (const place of document.querySelectorAll("[data-live-figure]")) {
  const { mount } = await import(`./${place.dataset.liveFigure}.mjs`);
  mount(place);
  place.hidden = false;
}
