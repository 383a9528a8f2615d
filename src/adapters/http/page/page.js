// Keeps the page up: when /events says that something changed, the page is fetched again and its live parts are
// swapped. Without this script it is the same page, only still.
"use strict";
(() => {
  const REFRESH_MS = 10000; // ages grow, and members change, without any event
  const TOGETHER_MS = 300; // what changes at once is fetched once
  const link = document.getElementById("link");
  const say = document.getElementById("say");
  let timer = 0, busy = false, again = false, said = null;

  function tell(text, lost) {
    if (link.textContent !== text) link.textContent = text;
    link.className = lost ? "lost" : "dim";
  }

  // What is the same element before and after, for the focus.
  function key(element) {
    return element.id ? "#" + CSS.escape(element.id)
      : element.hasAttribute("href") ? 'a[href="' + CSS.escape(element.getAttribute("href")) + '"]' : null;
  }

  function swap(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      if (!next || next.innerHTML === part.innerHTML) continue;
      const focused = part.contains(document.activeElement) ? key(document.activeElement) : null;
      part.replaceChildren(...document.importNode(next, true).childNodes);
      if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    }
    // One polite region that stays: what is swapped would not be read out.
    const words = [...document.querySelectorAll("[data-say]")].map((part) => part.textContent).join(". ");
    if (said !== null && words !== said) say.textContent = words || "No run is under way.";
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
      tell("Not connected: what you see is old", true);
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
  // Reloading after an order must not say again that it was done.
  if (location.search.includes("done=")) history.replaceState(null, "", location.pathname);
  said = [...document.querySelectorAll("[data-say]")].map((part) => part.textContent).join(". ");
  plan(REFRESH_MS);
})();
