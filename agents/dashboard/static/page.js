// What a person has opened, typed or chosen stays as it is when a part of the page is drawn anew.
document.addEventListener("htmx:beforeSwap", (event) => {
  const target = event.detail.target;
  if (target.id === "question") {
    // A question that is being answered is not drawn anew under the person's hands, unless it is another one.
    const asked = (text) => (/name="question" value="([^"]*)"/.exec(text) || ["", ""])[1];
    const inside = target.contains(document.activeElement);
    const same = asked(event.detail.serverResponse) === asked(target.innerHTML) && asked(target.innerHTML);
    if (inside && same && event.detail.requestConfig.verb === "get") event.detail.shouldSwap = false;
    target.dataset.inside = inside ? "1" : "";
  }
  target.dataset.open = JSON.stringify([...target.querySelectorAll("details[open]")].map((one) => one.id));
  const log = target.querySelector(".log");
  if (log) target.dataset.end = log.scrollHeight - log.scrollTop - log.clientHeight < 40 ? "1" : "";
  if (log) target.dataset.top = log.scrollTop;
});
// Earlier lines of the log come before what is shown, which stays where it is.
let above = 0;
document.addEventListener("htmx:beforeSwap", (event) => {
  const log = event.detail.target.closest(".log");
  if (log && event.detail.target.matches(".earlier")) above = log.scrollHeight - log.scrollTop;
});
document.addEventListener("htmx:afterSettle", () => {
  const log = document.querySelector(".log");
  if (log && above) log.scrollTop = log.scrollHeight - above;
  above = 0;
});
document.addEventListener("htmx:afterSwap", (event) => {
  const target = event.detail.target;
  for (const id of JSON.parse(target.dataset.open || "[]")) {
    const one = id && document.getElementById(id);
    if (one) one.open = true;
  }
  // Who answers by keyboard goes on from there: by Tab into the next question.
  if (target.id === "question" && target.dataset.inside) target.focus();
  if (target.id === "now") showNow();
  const log = target.querySelector(".log");
  if (log) log.scrollTop = target.dataset.end === "" ? Number(target.dataset.top) : log.scrollHeight;
});
// Who reads earlier lines of the log keeps them; what was told meanwhile is drawn when they are back at its end.
const isRead = (log) => log.scrollHeight - log.scrollTop - log.clientHeight >= 40;
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  const log = part.id === "log" && part.querySelector(".log");
  if (!log) return;
  part.dataset.late = isRead(log) ? "1" : "";
  if (isRead(log)) event.preventDefault();
});
document.addEventListener("scroll", (event) => {
  const log = event.target;
  const part = log.matches && log.matches(".log") && log.closest("#log");
  if (!part || !part.dataset.late || isRead(log)) return;
  part.dataset.late = "";
  htmx.trigger(part, "tune:log");
}, true);
// The tab says how far it is, and of a graph that is wider than the screen the live node is in sight.
function showNow() {
  document.title = `${document.querySelector("h1").textContent} · ${document.querySelector(".told").textContent}`;
  const wide = document.querySelector(".wide");
  const node = wide.querySelector(".live, .asked");
  if (!node) return;
  const [a, b] = [node.getBoundingClientRect(), wide.getBoundingClientRect()];
  wide.scrollLeft += a.left - b.left - (b.width - a.width) / 2;
}
document.addEventListener("DOMContentLoaded", () => {
  showNow();
  for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
});

// One connection tells all tabs of a browser, which has six to a server: the tab that holds the lock has it, and another
// tab takes it over when that one closes. Each tab draws the parts anew whose marks are not those that it shows.
// Each thread of the run has its own.
const base = document.documentElement.dataset.base;
const channel = "BroadcastChannel" in window ? new BroadcastChannel(`tune-marks${base}`) : null;
let newest = null;
function compare(marks) {
  newest = marks;
  const shown = JSON.parse(document.body.dataset.marks);
  document.body.dataset.marks = JSON.stringify(marks);
  for (const part of Object.keys(marks)) {
    if (marks[part] !== shown[part]) htmx.trigger(`#${part}`, `tune:${part}`);
  }
}
function showLost(isLost) {
  document.getElementById("lost").hidden = !isLost;
}
document.addEventListener("htmx:sendError", () => showLost(true));
// A part that could not be had is asked for again: its mark is known, and would not ask a second time.
for (const failed of ["htmx:sendError", "htmx:responseError"]) {
  document.addEventListener(failed, (event) => {
    const part = event.detail.elt;
    if (part.matches("section[id]")) setTimeout(() => htmx.trigger(part, `tune:${part.id}`), 1000);
  });
}
function listen() {
  const source = new EventSource(`${base}/events`);
  source.onmessage = (event) => {
    compare(JSON.parse(event.data));
    if (channel) channel.postMessage(newest);
  };
  const tell = (isLost) => {
    showLost(isLost);
    if (channel) channel.postMessage({ isLost });
  };
  source.onerror = () => tell(true);
  source.onopen = () => tell(false);
  if (channel) channel.onmessage = () => newest && channel.postMessage(newest);
  return new Promise(() => {});
}
document.addEventListener("DOMContentLoaded", () => {
  if (!channel || !navigator.locks) return listen();
  channel.onmessage = (event) => {
    if (event.data && "isLost" in event.data) showLost(event.data.isLost);
    else if (event.data) compare(event.data);
  };
  navigator.locks.request(`tune-events${base}`, listen);
  channel.postMessage(null); // a tab that is new asks what it has missed since it was drawn
});
