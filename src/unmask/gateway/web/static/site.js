// What makes pages quicker for those whose browser runs scripts; every page works without it.
// Forms and links marked data-swap="#id" are fetched, and only the element of that id is replaced.
"use strict";
(() => {
  const announce = (text) => { document.getElementById("live").textContent = text || ""; };
  const same = (url) => new URL(url, location.href).origin === location.origin;
  let running = null;
  let shown = location.pathname + location.search;

  const focusOf = () => {
    const here = document.activeElement;
    if (!here || !here.id) return () => {};
    const { id, selectionStart: from, selectionEnd: to } = here;
    return () => {
      const next = document.getElementById(id);
      if (!next || next === document.activeElement) return;
      next.focus({ preventScroll: true });
      try { if (from !== undefined && from !== null) next.setSelectionRange(from, to); } catch { /* no text field */ }
    };
  };

  // Returns false where the answer cannot take the element's place, and the browser has to go there itself.
  const swap = async (target, url, options, history_) => {
    const old = document.querySelector(target);
    if (!old || !same(url)) return false;
    running?.abort();
    const mine = running = new AbortController();
    old.classList.add("busy");
    old.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { ...options, signal: mine.signal, credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector(target);
      if (!fresh || !same(answer.url)) return false;
      const refocus = focusOf();
      old.replaceWith(document.adoptNode(fresh));
      document.title = page.title;
      reveal(fresh);
      refocus();
      announce(fresh.dataset.announce);
      if (history_) history[history_](null, "", answer.url);
      shown = location.pathname + location.search;
      return true;
    } catch (error) {
      if (error.name === "AbortError") return true;
      return false;
    } finally {
      old.classList.remove("busy");
      old.removeAttribute("aria-busy");
    }
  };

  const submit = async (form, history_, submitter) => {
    const data = new URLSearchParams([...new FormData(form, submitter)].filter(([, value]) => form.method === "post" || value));
    const url = new URL(form.action);
    if (form.method === "get") url.search = data;
    const options = form.method === "post" ? { method: "POST", body: data } : {};
    const done = await swap(form.dataset.swap, url, options, form.method === "get" ? history_ : null);
    if (!done) form.submit();
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
    if (question && !confirm(question)) { event.preventDefault(); return; }
    if (!form.dataset.swap || event.defaultPrevented) return;
    event.preventDefault();
    submit(form, "pushState", event.submitter);
  });
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-swap]");
    if (link && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button)) {
      event.preventDefault();
      if (!await swap(link.dataset.swap, link.href, {}, "pushState")) location.assign(link.href);
    }
    const copier = event.target.closest("[data-copy]");
    if (copier) {
      await navigator.clipboard.writeText(document.querySelector(copier.dataset.copy).textContent.trim());
      announce("Copied");
      copier.textContent = "Copied";
      setTimeout(() => { copier.textContent = "Copy"; }, 2000);
    }
    if (event.target.closest("[data-theme-toggle]")) {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      const [prefix, secure] = location.protocol === "https:" ? ["__Host-", "; secure"] : ["", ""];
      document.cookie = `${prefix}theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax${secure}`;
      announce(`${root.dataset.theme} colours`);
    }
  });

  let waiting = 0;
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form?.hasAttribute("data-live")) return;
    clearTimeout(waiting);
    waiting = setTimeout(() => submit(form, "replaceState"), event.target.type === "search" ? 250 : 0);
  });
  // A jump within the page is a popstate, too; only another address is loaded again.
  addEventListener("popstate", () => { if (shown !== location.pathname + location.search) location.reload(); });

  // Buttons that only a script can serve are hidden until there is one; some things it puts away on a narrow screen.
  const reveal = (root) => {
    for (const each of root.querySelectorAll("[data-script]")) each.hidden = false;
  };
  document.addEventListener("DOMContentLoaded", () => {
    reveal(document);
    if (matchMedia("(max-width: 52rem)").matches) document.querySelector(".filters > details")?.removeAttribute("open");
  });
})();
