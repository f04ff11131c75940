// The page module: keeps a server-rendered page live. Everything that is shown comes from the server as HTML; this file
// opens the stream, applies patches, and does what only a browser can: following the end, keys, ages, filters.
//
// Sections: patches · stream · connection · end of the page · earlier rows · timeline · forms · clocks · keys ·
// find and filter · theme.

const $ = (id) => document.getElementById(id);
const page = document.body.dataset;
const transcript = $("transcript");
const smooth = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";

// ─────────────────────────────── patches ───────────────────────────────

// One operation of a patch (docs/protocol.md §5) at a position. An element that is not there needs no change, and rows
// that were fetched later are at a later position already.
function apply([op, id, ...rest], seq) {
  const row = fetched.length && $(id)?.closest("[data-at]");
  if (row && seq <= Number(row.dataset.at)) return;
  switch (op) {
    case "replace": return replace($(id), parse(rest[0]));
    case "append": return append($(id), rest[0]);
    case "insert": return insert($(id), rest[0], parse(rest[1]));
    case "remove": return $(id)?.remove();
  }
}

function append(el, text) {
  el?.append(text);
  if (el) speed(el, text.length);
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

function replace(old, fresh) {
  if (!old || !fresh || old.outerHTML === fresh.outerHTML) return;
  if (old.id === "transcript") $("earlier")?.remove();
  keep(old, fresh);
  old.replaceWith(fresh);
  settle(fresh);
}

// An element whose id is there already takes that one's place and state. One that belongs before a row that is not on the
// page belongs to the rows that are not on it either: a page holds a run of rows up to the last.
function insert(parent, before, fresh) {
  if (!parent || !fresh) return;
  const old = fresh.id ? $(fresh.id) : null;
  const next = before ? $(before) : null;
  if (before && !next) return void old?.remove();
  if (old) keep(old, fresh);
  const held = isHeld(parent);
  if (held) moves.push([fresh.id, parent, before]);
  if (old && (held || (old.parentElement === parent && old.nextElementSibling === next))) {
    old.replaceWith(fresh);
  } else if (held) {
    parent.append(fresh);
  } else {
    old?.remove();
    parent.insertBefore(fresh, next?.parentElement === parent ? next : null);
  }
  settle(fresh);
}

// What the reader did with an element outlives its replacement: what is open, what is written, what is chosen.
function keep(old, fresh) {
  const state = new Map(stateful(old).map((el) => [el.id, el]));
  for (const el of stateful(fresh)) {
    const before = state.get(el.id);
    if (!before || before.tagName !== el.tagName) continue;
    if (el.tagName === "DETAILS") {
      if (before.dataset.touched !== undefined) {
        el.open = before.open;
        el.dataset.touched = "";
      }
    } else if (el.type === "radio" || el.type === "checkbox") {
      el.checked = before.checked;
    } else if (el.type !== "hidden") {
      el.value = before.value;
    }
  }
  const focused = document.activeElement;
  if (focused && focused !== document.body && old.contains(focused)) fresh.dataset.refocus = focused.id || focused.name || "";
}

function stateful(root) {
  const kinds = "details[id], input[id], textarea[id], select[id]";
  return [...(root.matches(kinds) ? [root] : []), ...root.querySelectorAll(kinds)];
}

function settle(fresh) {
  if (fresh.dataset.refocus !== undefined) {
    const key = fresh.dataset.refocus;
    delete fresh.dataset.refocus;
    const named = key && [...fresh.querySelectorAll("[name]")].find((el) => el.name === key);
    const target = (key && (fresh.id === key ? fresh : fresh.querySelector(`#${CSS.escape(key)}`))) || named;
    target?.focus({ preventScroll: true });
  }
  if (fresh.matches(".agent-row")) fresh.classList.add("is-fresh");
  if (fresh.matches(".chips")) press();
  if (fresh.dataset.moment) goAlong(fresh.dataset.moment);
  tick(fresh);
  filterOne(fresh);
}

// Rows of a list keep their places while the reader is about to click one.
const isHeld = (parent) => parent.id === "rig-town-agents" && (parent.matches(":hover") || parent.contains(document.activeElement));

// What was not moved then is moved when pointer and focus are gone.
const moves = [];
function release() {
  if (!moves.length || isHeld(moves[0][1])) return;
  for (const [id, parent, before] of moves.splice(0)) {
    const row = $(id);
    const next = before ? $(before) : null;
    if (row && row.parentElement === parent && row.nextElementSibling !== next) parent.insertBefore(row, next);
  }
}
addEventListener("pointermove", release, { passive: true });
addEventListener("focusout", () => setTimeout(release));

// Opening and closing is the reader's act only: remembered from then on.
document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.parentElement;
  if (details?.tagName === "DETAILS") details.dataset.touched = "";
});

// ─────────────────────────────── stream ───────────────────────────────

const cursor = { epoch: page.epoch, seq: Number(page.after) };
let socket = null;
let tries = 0;
let heard = 0;
let refusedOnce = false;
let heartbeat = 15000;

async function connect() {
  if (!page.stream) return;
  show(tries ? "reconnecting" : "catching_up");
  const url = new URL(page.stream, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.searchParams.set("view", "html");
  if (replay()) {
    // A replay goes on from where the page stands; it has no position in the log.
    url.searchParams.set("at", replay());
  } else {
    url.searchParams.set("after", cursor.seq);
    url.searchParams.set("epoch", cursor.epoch);
  }
  try {
    const ticket = page.key ?? (await ticketFor());
    if (ticket) url.searchParams.set("ticket", ticket);
  } catch {
    return again();
  }
  socket = new WebSocket(url);
  heard = performance.now();
  socket.onmessage = (event) => {
    heard = performance.now();
    take(JSON.parse(event.data));
  };
  socket.onclose = (event) => closed(event.code);
}

// The position of the past that the page shows, if it plays the past.
const replay = () => $("scrub-speed")?.dataset.seq;

// A stream opens with a ticket that the session's cookie gets. The cookie alone is enough where there is none.
async function ticketFor() {
  if (!page.ticket) return null;
  const response = await fetch(page.ticket, { method: "POST", headers: { accept: "application/json" } });
  if (response.status === 401) return signIn();
  if (!response.ok) throw new Error(`ticket: ${response.status}`);
  return (await response.json()).data.ticket;
}

function signIn() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  return new Promise(() => {});
}

function take(frame) {
  switch (frame.type) {
    case "hello":
      heartbeat = frame.heartbeat_ms;
      break;
    case "subscribed":
      if (frame.epoch !== cursor.epoch) cursor.epoch = frame.epoch;
      break;
    case "patch":
      if (held) held.push(frame);
      else patch(frame);
      break;
    case "live":
      tries = 0;
      refusedOnce = false;
      show(replay() ? "replay" : "live");
      break;
    case "ended":
      // What was played has come to the present.
      if (replay()) location.assign(location.pathname);
      break;
    case "presence":
      presence(frame.wrapper);
      break;
    case "heartbeat":
      socket.send('{"type":"pong"}');
      break;
  }
}

function patch(frame) {
  const count = newRows(() => frame.ops.forEach((op) => apply(op, frame.seq)));
  cursor.seq = frame.seq;
  follow(count);
}

function closed(code) {
  socket = null;
  if (code === 4401) {
    if (page.key) return location.reload();
    if (refusedOnce) return void signIn();
    refusedOnce = true;
  } else if (code === 4403 || code === 4404 || code === 4400) {
    return show("offline");
  }
  again();
}

// 1 s·2^n up to 5 s, × 0.5..1.5: a herd of pages does not come back in one instant (§8).
function again() {
  show("reconnecting");
  const delay = Math.min(5000, 1000 * 2 ** tries++) * (0.5 + Math.random());
  setTimeout(connect, delay);
}

// Three heartbeats without a word: the connection is dead, whatever the browser believes.
setInterval(() => {
  if (socket && performance.now() - heard > 3 * heartbeat) socket.close();
}, 5000);
addEventListener("online", () => { if (!socket) { tries = 0; connect(); } });

// ─────────────────────────────── connection ───────────────────────────────

const WORDS = { live: "Live", catching_up: "Catching up", reconnecting: "Reconnecting", offline: "Offline", gap: "Gap", replay: "Replay" };

function show(state) {
  // What is on the page may be old by now, and looks so.
  document.documentElement.toggleAttribute("data-stale", state === "reconnecting" || state === "offline");
  const live = $("live");
  if (live?.querySelector(".conn-dot")) live.dataset.state = state;
  for (const el of document.querySelectorAll(".conn")) {
    el.dataset.state = state;
    const word = el.querySelector(".conn-word");
    if (word) word.textContent = WORDS[state];
  }
}

function presence(wrapper) {
  const tag = $("wrapper");
  if (tag) tag.hidden = wrapper !== "disconnected";
}

// ─────────────────────────────── end of the page ───────────────────────────────

let following = true;
let missed = 0;

const fromEnd = () => document.documentElement.scrollHeight - innerHeight - scrollY;

function newRows(change) {
  const before = transcript?.childElementCount ?? 0;
  change();
  return Math.max(0, (transcript?.childElementCount ?? 0) - before);
}

function follow(count) {
  if (!transcript) return;
  if (following) return scrollTo({ top: document.documentElement.scrollHeight });
  missed += count;
  jump();
}

function jump() {
  const button = $("jump");
  if (!button) return;
  button.hidden = following;
  $("jump-n").textContent = missed ? `${missed} new` : "To the end";
}

// Only the reader's own scrolling lets go of the end; a page that grows does not.
let lastTop = scrollY;
addEventListener("scroll", () => {
  const up = scrollY < lastTop - 2;
  lastTop = scrollY;
  if (fromEnd() < 80) {
    following = true;
    missed = 0;
  } else if (up) {
    following = false;
  }
  jump();
}, { passive: true });

function toEnd() {
  following = true;
  missed = 0;
  scrollTo({ top: document.documentElement.scrollHeight, behavior: smooth });
  jump();
}
$("jump")?.addEventListener("click", toEnd);

// How fast it writes: characters of the last seconds, four to a token as is usual for prose and code.
const written = [];
function speed(el, characters) {
  const note = el.closest(".part")?.querySelector(".rate");
  if (!note) return;
  const now = performance.now();
  written.push([now, characters]);
  while (written.length && written[0][0] < now - 3000) written.shift();
  const seconds = Math.max(1, (now - written[0][0]) / 1000);
  set(note, ` · about ${Math.round(written.reduce((sum, [, n]) => sum + n, 0) / 4 / seconds)} tok/s`);
}

// ─────────────────────────────── earlier rows ───────────────────────────────

// Rows before those that the page began with are fetched as a page and put above. Patches wait meanwhile; those that the
// fetched rows have already are not applied to them again.
const fetched = [];
let held = null;

async function earlier(url) {
  if (held) return;
  held = [];
  try {
    const response = await fetch(url, { headers: { accept: "text/html" } });
    if (!response.ok) throw new Error(`earlier rows: ${response.status}`);
    const other = new DOMParser().parseFromString(await response.text(), "text/html");
    const first = transcript.firstElementChild;
    const rows = [];
    for (const row of other.getElementById("transcript").children) {
      if (row.id === first?.id) break;
      rows.push(document.importNode(row, true));
    }
    const below = document.documentElement.scrollHeight - scrollY;
    for (const row of rows) {
      row.dataset.at = other.body.dataset.after;
      tick(row);
      filterOne(row);
    }
    fetched.push(...rows);
    $("transcript").prepend(...rows);
    const more = other.getElementById("earlier");
    if (more) $("earlier").replaceWith(document.importNode(more, true));
    else $("earlier").remove();
    if (!following) scrollTo({ top: document.documentElement.scrollHeight - below });
  } catch {
    location.assign(url);
  } finally {
    const frames = held;
    held = null;
    frames.forEach(patch);
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("#earlier a");
  if (!link || !page.stream) return;
  event.preventDefault();
  following = false;
  earlier(link.href);
});

// ─────────────────────────────── timeline ───────────────────────────────

// Dragging says where it would lead; letting go leads there. The server knows what time a moment is.
const scrub = $("scrub-at");
let began = scrub?.value;

// While the past is played, the timeline goes along, unless the reader holds it.
function goAlong(moment) {
  if (!scrub || scrub.matches(":active")) return;
  scrub.value = began = moment;
  $("scrub-label").hidden = true;
}

scrub?.addEventListener("input", () => {
  const label = $("scrub-label");
  label.hidden = scrub.value === began;
  label.value = whenAt(Number(scrub.value));
  label.style.setProperty("--at", `${scrub.value / 10}%`);
  scrub.setAttribute("aria-valuetext", label.value);
});
scrub?.addEventListener("change", () => {
  if (scrub.value !== began) scrub.form.requestSubmit();
});
scrub?.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  scrub.value = began;
  $("scrub-label").hidden = true;
});

// The time of a moment: columns are of one width, pauses between them are left out.
function whenAt(moment) {
  const { start, width, runs } = $("scrub-past").dataset;
  if (!runs) return "";
  const slot = Math.round((moment * (Number($("scrub-past").dataset.slots) - 1)) / 1000);
  let time = 0;
  for (const run of runs.split(" ")) {
    const [at, column] = run.split(":").map(Number);
    if (at > slot) break;
    time = Number(start) + (column + slot - at) * Number(width);
  }
  return clock.format(time);
}

// A mark leads to what it names, on this page if it is there.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.scrub-mark, a.child-row, a.file-row");
  const target = link?.hash && $(decodeURIComponent(link.hash.slice(1)));
  if (!target) return;
  event.preventDefault();
  history.replaceState(null, "", link.hash);
  reveal();
});

// The sticky head's height is known only here.
const head = $("agent-head");
if (head) {
  new ResizeObserver(() => document.documentElement.style.setProperty("--head-h", `${head.offsetHeight}px`)).observe(head);
}

// ─────────────────────────────── forms ───────────────────────────────

addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-live]");
  if (!form) return;
  event.preventDefault();
  const button = event.submitter;
  const data = new URLSearchParams(new FormData(form, button));
  const buttons = [...form.querySelectorAll("button:not(:disabled)")];
  buttons.forEach((el) => (el.disabled = true));
  form.querySelector(".form-error")?.remove();
  try {
    const response = await fetch(form.action, { method: "POST", body: data, headers: { accept: "application/json" } });
    if (response.status === 401) return signIn();
    const answer = await response.json();
    if (!answer.success) throw new Error(answer.error);
    if (form.id === "composer") {
      form.reset();
      toEnd();
    }
  } catch (error) {
    const words = document.createElement("p");
    words.className = "form-error";
    words.setAttribute("role", "alert");
    words.textContent = error instanceof TypeError ? "The server could not be reached. Nothing was sent." : error.message;
    form.append(words);
  } finally {
    buttons.forEach((el) => (el.disabled = false));
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-act=copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.closest(".code").querySelector("pre").textContent);
    button.dataset.state = "completed";
    setTimeout(() => delete button.dataset.state, 1200);
  } catch {
    getSelection().selectAllChildren(button.closest(".code").querySelector("pre"));
  }
});

// ─────────────────────────────── clocks ───────────────────────────────

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 3600) return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}`;
  return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}`;
}

function ago(ms) {
  const s = Math.max(0, ms / 1000);
  if (s < 10) return `${s.toFixed(1)} s ago`;
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86400)} d ago`;
}

// Sets what depends on the time: server and patches know only when something was.
function tick(root) {
  const now = Date.now();
  for (const el of [root, ...root.querySelectorAll("time[datetime], .drain[data-to]")]) {
    const at = Date.parse(el.dateTime ?? el.dataset?.to ?? "");
    if (Number.isNaN(at)) continue;
    const data = el.dataset;
    if (data.to && !el.style.getPropertyValue("--for")) el.style.setProperty("--for", `${Math.max(0, at - now)}ms`);
    else if (data.elapsed !== undefined) set(el, span(now - at));
    else if (data.until !== undefined) set(el, at > now ? span(at - now + 999) : "now");
    else if (data.age !== undefined) set(el, el.closest(".age") ? span(now - at) : ago(now - at));
    else if (data.clock !== undefined) set(el, clock.format(at));
    else if (data.date !== undefined) set(el, day.format(at));
  }
}

// Writing the same text again would still be a change to whoever observes the page.
function set(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

const TICKING = "time[data-age], time[data-elapsed], time[data-until]";
tick(document.body);
setInterval(() => document.querySelectorAll(TICKING).forEach((el) => tick(el)), 1000);

// ─────────────────────────────── keys ───────────────────────────────

let prefix = "";
addEventListener("keydown", (event) => {
  const field = event.target.closest?.("input:not([type=radio]):not([type=checkbox]), textarea, select");
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey) && field?.form?.id === "composer") {
    event.preventDefault();
    return field.form.requestSubmit();
  }
  if (field || event.metaKey || event.ctrlKey || event.altKey) {
    if (event.key === "Escape") field?.blur();
    return;
  }
  if (event.key === "Escape" && $("side")?.matches(":target, :has(:target)")) return location.replace("#transcript");
  const key = event.key;
  if (prefix === "g") {
    prefix = "";
    if (key === "l") return toEnd();
    if (key === "a") return location.assign("/agents");
    if (key === "s") return location.assign("/search");
  }
  const dock = document.querySelector("#dock:not([hidden])");
  const answer = { y: "once", a: "always", n: "reject" }[key.toLowerCase()];
  const button = answer && dock?.querySelector(`button[value=${answer}]`);
  if (button) return event.preventDefault(), button.click();
  if (key === "g") return void (prefix = "g");
  if (key === "/") return focusOn($("find") ?? $("q") ?? $("search"), event);
  if (key === "j" || key === "k") return step(key === "j" ? 1 : -1);
  if (key === "o") return marked()?.querySelector("details > summary")?.click();
  if (/^[1-9]$/.test(key)) document.querySelectorAll(".ask .option input")[Number(key) - 1]?.click();
});

function focusOn(el, event) {
  if (!el) return;
  event.preventDefault();
  el.focus();
}

const marked = () => document.querySelector(".part.is-marked");

function step(by) {
  const parts = [...document.querySelectorAll("#transcript > .part:not([hidden]):not(.is-away), #rig-town-agents > .agent-row:not(.is-away), .hits > .hit")];
  const top = (head?.offsetHeight ?? 0) + 8;
  let at = parts.indexOf(marked());
  if (at < 0) at = parts.findIndex((el) => el.getBoundingClientRect().top >= top) - (by > 0 ? 1 : 0);
  const next = parts[Math.min(parts.length - 1, Math.max(0, at + by))];
  marked()?.classList.remove("is-marked");
  if (!next) return;
  next.classList.add("is-marked");
  if (by < 0) following = false;
  next.scrollIntoView({ block: "nearest" });
  next.querySelector(".agent-link, .hit-link")?.focus({ preventScroll: true });
}

// ─────────────────────────────── find and filter ───────────────────────────────

let shown = "all";

function filterOne(el) {
  if (shown === "all" || !el.matches(".part, .step, .moment, .agent-row")) return;
  el.classList.toggle("is-away", !matches(el));
}

function matches(el) {
  if (el.matches(".agent-row")) return el.dataset.state === shown;
  switch (shown) {
    case "prompt": return el.matches(".part-prompt");
    case "text": return el.matches(".part-prompt, .part-text");
    case "edit": return !!el.querySelector("[data-tool=edit], [data-tool=write]");
    case "bash": return !!el.querySelector("[data-tool=bash]");
    case "error": return !!el.querySelector("[data-state=error]") || el.matches("[data-state=error]");
  }
  return true;
}

function press() {
  for (const chip of document.querySelectorAll("[data-show]")) chip.setAttribute("aria-pressed", String(chip.dataset.show === shown));
}

function filter(kind) {
  shown = kind;
  press();
  for (const el of document.querySelectorAll("#transcript > li, #rig-town-agents > li")) el.classList.toggle("is-away", kind !== "all" && !matches(el));
}

document.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-show]");
  if (chip) filter(chip.dataset.show);
});
const find = $("find");
let hits = [];
let hit = -1;

// What is looked for may be in rows that are not here yet.
find?.addEventListener("input", async () => {
  const link = document.querySelector("#earlier a");
  if (link && find.value.trim()) {
    const all = new URL(link.href);
    all.searchParams.set("before", "");
    await earlier(all);
  }
  search();
});
document.addEventListener("click", (event) => {
  const step = event.target.closest("[data-find]");
  if (step) go(Number(step.dataset.find));
});
find?.addEventListener("keydown", (event) => {
  if (event.key === "Enter") go(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") { find.value = ""; search(); find.blur(); }
});

function search() {
  const words = find.value.trim().toLowerCase();
  hits = [];
  hit = -1;
  if (words) {
    const walker = document.createTreeWalker(transcript, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && hits.length < 1000) {
      const text = walker.currentNode.data.toLowerCase();
      for (let at = text.indexOf(words); at >= 0 && hits.length < 1000; at = text.indexOf(words, at + words.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + words.length);
        hits.push(range);
      }
    }
  }
  if (globalThis.Highlight && CSS.highlights) CSS.highlights.set("find", new Highlight(...hits));
  note();
}

function go(by) {
  if (!hits.length) return;
  hit = (hit + by + hits.length) % hits.length;
  const range = hits[hit];
  let el = range.startContainer.parentElement;
  for (let up = el; up; up = up.parentElement) if (up.tagName === "DETAILS") { up.open = true; up.dataset.touched = ""; }
  following = false;
  el.scrollIntoView({ block: "center" });
  if (globalThis.Highlight && CSS.highlights) CSS.highlights.set("find-now", new Highlight(range));
  note();
}

function note() {
  $("find-steps").hidden = hits.length === 0;
  $("find-n").textContent = find.value.trim() ? `${hit + 1 ? `${hit + 1} of ` : ""}${hits.length}` : "";
}

// An address of something inside a closed card opens the card.
function reveal() {
  const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const card = target.matches("#transcript .part") ? target.querySelector("details") : null;
  for (let up = card ?? target; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
  document.querySelectorAll(".part.is-marked").forEach((el) => el.classList.remove("is-marked"));
  if (target.matches(".part")) target.classList.add("is-marked");
  if (target.closest("#transcript")) {
    following = false;
    target.scrollIntoView({ block: "center" });
  }
}
addEventListener("hashchange", reveal);

// The number beside a part shows its event in the side panel, if it is listed there; else the link opens it.
document.addEventListener("click", (event) => {
  const link = event.target.closest(".part-seq");
  const row = link && $(`seq-${link.dataset.seq}`);
  if (!row) return;
  event.preventDefault();
  document.querySelectorAll(".event-row.is-marked").forEach((el) => el.classList.remove("is-marked"));
  row.classList.add("is-marked");
  row.closest("details").open = true;
  row.scrollIntoView({ block: "nearest" });
});

// ─────────────────────────────── theme ───────────────────────────────

$("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // Storage may be forbidden: the choice holds for this page.
  }
});

if (transcript && !location.hash) scrollTo({ top: document.documentElement.scrollHeight });
reveal();
connect();
