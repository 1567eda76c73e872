// What runs in the browser: it numbers questions, shows the newest answer and dims outdated ones,
// switches between light and dark, names controls for screen readers, and accepts photographs that
// are dropped or pasted.
(() => {
  const find = (selector) => document.querySelector(selector);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const state = document.documentElement.dataset;

  // -- Questions and answers. Each question has a number, and each answer that of the last question
  // it takes into account. Answers to earlier questions are dimmed until the next one comes.
  const places = { "cp-predictions": "photo", "cp-answers": "explanation", "cp-ascents": "ascent" };
  const touched = {
    photo: ["photo", "explanation", "ascent"], all: ["explanation", "ascent"],
    explanation: ["explanation"], ascent: ["ascent"],
  };
  const wanted = { photo: 0, explanation: 0, ascent: 0 };
  const chosen = new Map();  // files being uploaded, and the turns in which they were chosen
  let turn = 0, ascending = 0;

  const asked = (about, control, values) => {
    const file = about === "photo" && values[0]?.orig_name;
    const mine = chosen.get(file) || ++turn;
    chosen.delete(file);
    for (const place of touched[about]) wanted[place] = Math.max(wanted[place], mine);
    if (about === "ascent") ascending = mine;
    delete given[control];
    stale();
    return [...values.slice(0, -1), mine];
  };

  // Stops what was asked so far, even what has not arrived yet.
  const stopping = (values) => [...values.slice(0, -1), turn];

  const turnOf = (element) => Number(element?.querySelector("[data-turn]")?.dataset.turn || 0);

  const stale = () => {
    for (const [id, place] of Object.entries(places)) {
      const element = find("#" + id);
      if (!element) continue;
      const old = turnOf(element) < wanted[place];
      element.classList.toggle("cp-old", old);
      element.setAttribute("aria-busy", String(old));
    }
    const again = find(".cp-again");
    const changed = find("#cp-ascents .cp-tile") && find("#cp-ascents.cp-old")
      && ascending < wanted.ascent;
    const text = changed ? "Settings have changed: Ascend again." : "";
    if (again && again.textContent !== text) again.textContent = text;
  };

  // Shows a card, unless a later one is shown. Its pictures are decoded first to avoid flicker.
  const show = async (place, html, deliver) => {
    if (!html) return;
    const next = document.createElement("template");
    next.innerHTML = html;
    const card = next.content.firstElementChild, now = place.firstElementChild;
    const number = Number(card.dataset.turn), serial = Number(card.dataset.serial);
    const last = place.cpLast || 0;
    if (number && (number < last || (number === last && serial < place.cpSerial))) return;
    if (number) Object.assign(place, { cpLast: number, cpSerial: serial });
    const mine = place.cpCount = (place.cpCount || 0) + 1;
    const values = card.dataset.set && JSON.parse(card.dataset.set);
    note(values);
    if (now && now.innerHTML === card.innerHTML) {
      now.dataset.turn = Math.max(Number(now.dataset.turn), number);
      set(values, number, deliver);
      return stale();
    }
    await Promise.all([...card.querySelectorAll("img")].map((img) => img.decode().catch(() => 0)));
    if (mine < place.cpCount) return;
    keep(place, card);
    place.replaceChildren(card);
    set(values, number, deliver);
    stale();
    if (!card.querySelector(".cp-wait")) announce(card);
  };

  // Controls that the server sets. They wait while a newer question is open, and what the user
  // changes meanwhile is kept.
  let given = {}, ready = {};
  const note = (values) => {
    for (const [name, value] of Object.entries(values || {})) {
      const both = Array.isArray(value) && given[name]?.choices;
      given[name] = both ? { ...given[name], value } : value;
    }
  };
  const set = (values, number, deliver) => {
    if (!values || number < turn) return;
    Object.assign(ready, given);
    given = {};
    deliver();
  };
  const delivered = (names) => {
    const now = ready;
    ready = {};
    return names.map((name) => {
      const value = now[name];
      // Not while somebody is typing in it: its value counts when it loses the focus.
      const typing = document.activeElement?.matches?.("input[type=number]")
        && document.activeElement.closest("#cp-" + name);
      if (value === undefined || typing) return { __type__: "update" };
      return value?.choices ? { __type__: "update", ...value } : value;
    });
  };

  // Keeps what the user has opened, moved or focused.
  const keep = (place, card) => {
    const pair = (selector, use) => {
      const after = card.querySelectorAll(selector);
      place.querySelectorAll(selector).forEach((old, i) => after[i] && use(old, after[i]));
    };
    pair("details", (old, now) => { now.open = old.open; });
    pair(".cp-compare input", (old, now) => {
      now.value = old.value;
      now.parentNode.style.setProperty("--cut", old.value + "%");
    });
    const focusable = "button, summary, input";
    const index = [...place.querySelectorAll(focusable)].indexOf(document.activeElement);
    if (index >= 0) queueMicrotask(() => place.querySelectorAll(focusable)[index]?.focus());
  };

  const announce = (card) => {
    const titles = [...card.querySelectorAll(".cp-answer h3")].map((h) => h.textContent);
    const maps = [...card.querySelectorAll(".cp-answer h4")].slice(1).map((h) => h.textContent);
    const text = [...titles, ...maps].join(", ") || card.querySelector(".cp-message")?.textContent;
    if (text) find("#cp-announce").textContent = text;
  };

  const download = (file) => {
    if (!file?.url) return [file];
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name || "";
    document.body.append(link);
    link.click();
    link.remove();
    return [file];
  };

  // -- Controls: only those that have an effect are shown, by the style sheet.
  const controls = (tab, follow, what, method) => {
    Object.assign(state, { cpWhat: what, cpPool: follow ? "same" : "own" });
    state.cpTab = tab || state.cpTab;
    const heats = method.includes("pullback") || state.cpTab === "ascend";
    for (const input of all(":is(.cp-heat, .cp-gates) :is(input, button)")) input.disabled = !heats;
    state.cpHeat = heats ? "on" : "off";
    return [];
  };
  Object.assign(state, { cpWhat: "class", cpPool: "same", cpTab: "explain", cpHeat: "on" });

  // A number box that is left empty or out of range returns to its last valid value.
  const valid = (box) => box.value !== "" && box.checkValidity() ? box.value : undefined;
  const boxed = (event) => event.target.matches?.("input[type=number]") ? event.target : null;
  addEventListener("focusin", (event) => {
    const box = boxed(event);
    if (box) box.cpValid = valid(box) ?? box.cpValid;
  });
  addEventListener("input", (event) => {
    const box = boxed(event);
    if (box) box.cpValid = valid(box) ?? box.cpValid;
  }, true);
  addEventListener("blur", (event) => {
    const box = boxed(event);
    if (!box || box.value !== "" || box.cpValid === undefined) return;
    box.value = box.cpValid;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);

  // -- Light or dark: as the system is set, until the user chooses.
  const remembered = () => {
    try { return localStorage.getItem("cp-colors"); } catch { return null; }
  };
  const paint = () => {
    const choice = remembered(), body = document.body;
    if (choice && body.classList.contains("dark") !== (choice === "dark")) {
      body.classList.toggle("dark", choice === "dark");
    }
    const pressed = String(body.classList.contains("dark"));
    const button = find(".cp-theme");
    if (button && button.getAttribute("aria-pressed") !== pressed) {
      button.setAttribute("aria-pressed", pressed);
    }
  };
  const dark = () => {
    const choice = document.body.classList.contains("dark") ? "light" : "dark";
    try { localStorage.setItem("cp-colors", choice); } catch { /* the page keeps it */ }
    document.body.classList.toggle("dark", choice === "dark");
    paint();
    find("#cp-announce").textContent = choice === "dark" ? "Dark colors" : "Light colors";
  };

  // -- Names for controls that Gradio leaves without one.
  const name = (element, label) => {
    if (element.getAttribute("aria-label") !== label) element.setAttribute("aria-label", label);
  };
  const names = () => {
    for (const group of all("fieldset")) {
      const label = {
        "cp-show": "How maps are drawn", "cp-what": "What is explained",
        "cp-unit": "Unit of the temperature", "cp-rules": "Rules",
      }[group.id];
      if (label) name(group, label);
    }
    for (const token of all("#cp-targets .token")) {
      const remove = token.querySelector(".token-remove");
      const label = `Remove ${token.querySelector("span").textContent.trim()}`;
      if (!remove) continue;
      name(remove, label);
      if (remove.title !== label) remove.title = label;
    }
    for (const clear of all("#cp-targets .remove-all")) name(clear, "Remove all classes");
    const fit = find("#cp-fit");
    if (fit && !fit.hasAttribute("aria-describedby")) {
      fit.setAttribute("aria-describedby", "cp-fit-hint");
    }
    for (const scroller of all(".cm-scroller")) scroller.tabIndex = 0;
  };
  const tidy = () => { paint(); names(); };

  const start = () => {
    tidy();
    new MutationObserver(tidy).observe(document.body, {
      subtree: true, childList: true, attributes: true, attributeFilter: ["class"],
    });
  };
  if (document.body) start();
  else addEventListener("DOMContentLoaded", start);

  // -- A photograph may be dropped anywhere, or pasted: the upload button sends it.
  const give = (file, as) => {
    const input = find("#cp-upload input[type=file], input#cp-upload") || find("input[type=file]");
    if (!input || !file) return;
    const files = new DataTransfer();
    files.items.add(as ? new File([file], as, { type: file.type }) : file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  addEventListener("change", (event) => {  // its turn is that of now, however long the upload takes
    const file = event.target.type === "file" && event.target.files[0];
    if (file) chosen.set(file.name, ++turn);
  }, true);
  const hasFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  let depth = 0;
  const shade = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("cp-dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => hasFiles(event) && shade(1));
  addEventListener("dragleave", (event) => hasFiles(event) && shade(-1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    shade(-depth);
    give(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])][0];
    if (file) give(file, "pasted." + (file.type.split("/")[1] || "png"));
  });

  window.cp = { asked, stopping, show, delivered, controls, dark, download };
})();
