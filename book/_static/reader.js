/* Small repairs in the browser: what scrolls can be reached by keyboard, controls say what they are. */
"use strict";

const SCROLLERS = "pre, div.math, .pst-scrollable-table-container, .output.text_html, .output.text_markdown, .output.text_html > div";

/* A thing that scrolls sideways takes the focus, so that arrow keys move it; a name says what it is. */
function reach(box) {
  const scrolls = box.scrollWidth > box.clientWidth;
  if (scrolls) {
    box.tabIndex = 0;
    if (!box.hasAttribute("role")) {
      box.setAttribute("role", "group");
      const what = box.tagName === "PRE" ? "code" : box.matches(".math") ? "formula" : "table";
      box.setAttribute("aria-label", `${what}, scrolls sideways`);
    }
  } else if (box.tabIndex === 0) {
    box.tabIndex = -1;
  }
}

function reachScrollers() {
  const look = (changes) => changes.forEach((change) => reach(change.target.closest(SCROLLERS)));
  const observer = new ResizeObserver((changes) => requestAnimationFrame(() => look(changes))); // not within the observation
  for (const box of document.querySelectorAll(SCROLLERS)) {
    observer.observe(box);
    if (box.firstElementChild) observer.observe(box.firstElementChild);
    reach(box);
  }
  if (window.MathJax && MathJax.startup && MathJax.startup.promise) {
    MathJax.startup.promise.then(() => document.querySelectorAll(SCROLLERS).forEach(reach));
  }
}

/* A slider over pictures says the value it stands at, not the number of the picture. */
function announceSliders() {
  for (const slider of document.querySelectorAll(".frames input[type=range]")) {
    const tell = () => {
      const frame = slider.closest(".frames").querySelectorAll("img")[slider.value];
      slider.setAttribute("aria-valuetext", frame.dataset.at);
    };
    slider.addEventListener("input", tell);
    tell();
  }
}

window.addEventListener("load", () => {
  announceSliders();
  reachScrollers();
});
