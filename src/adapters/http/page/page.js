// Keeps the page up to date: when /events reports a change, the page is fetched again and its live parts are
// replaced. Without this script it is the same page, but static.
"use strict";
(() => {
  const REFRESH_MS = 10000; // ages grow and members change without an event
  const TOGETHER_MS = 300; // several changes at once are fetched together
  const link = document.getElementById("link");
  const say = document.getElementById("say");
  const shown = new Map(); // the content of each live part as it came: people may have opened something in it
  let timer = 0, busy = false, again = false, said = null;

  function tell(text, lost) {
    if (link.textContent !== text) link.textContent = text;
    link.className = lost ? "lost" : "dim";
  }

  // A selector that finds the same element after the replacement, to keep the focus.
  function key(element) {
    return element.id ? "#" + CSS.escape(element.id)
      : element.hasAttribute("href") ? 'a[href="' + CSS.escape(element.getAttribute("href")) + '"]' : null;
  }

  function swap(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === shown.get(part.id)) continue;
      shown.set(part.id, next.innerHTML);
      part.toggleAttribute("data-live", next.hasAttribute("data-live"));
      const focused = part.contains(document.activeElement) ? key(document.activeElement) : null;
      part.replaceChildren(...document.importNode(next, true).childNodes);
      if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    }
    // A permanent live region: replaced elements would not be read out.
    const words = [...document.querySelectorAll("[data-say]")].map((part) => part.textContent).join(". ");
    if (said !== null && words !== said) say.textContent = words || "No run is in progress.";
    said = words;
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    again = false;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", signal: AbortSignal.timeout(8000) });
      if (!answer.ok) throw new Error(answer.status);
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      tell("Live", false);
    } catch {
      tell("Not connected: this page is out of date", true);
    }
    busy = false;
    plan(again ? TOGETHER_MS : REFRESH_MS);
  }

  function plan(wait) {
    clearTimeout(timer);
    timer = setTimeout(() => document.hidden ? plan(REFRESH_MS) : refresh(), wait);
  }

  const events = new EventSource(document.body.dataset.events);
  events.addEventListener("change", () => busy ? again = true : plan(TOGETHER_MS));
  events.addEventListener("error", () => plan(TOGETHER_MS * 10));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) plan(0); });
  // Reloading the page must not show the confirmation of an action again.
  if (location.search.includes("done=")) history.replaceState(null, "", location.pathname);
  said = [...document.querySelectorAll("[data-say]")].map((part) => part.textContent).join(". ");
  for (const part of document.querySelectorAll("[data-live]")) shown.set(part.id, part.innerHTML);
  plan(REFRESH_MS);
})();
