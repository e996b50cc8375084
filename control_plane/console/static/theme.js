// Runs before the page is drawn, so that nobody sees the other colours first.
"use strict";
(() => {
  let kept = null;
  try { kept = localStorage.getItem("yolopool-theme"); } catch { /* storage is off */ }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
