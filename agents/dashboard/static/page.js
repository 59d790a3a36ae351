// What a person has opened, typed or chosen stays as it is when a part of the page is drawn anew.
document.addEventListener("htmx:beforeSwap", (event) => {
  const target = event.detail.target;
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
  const log = target.querySelector(".log");
  if (log) log.scrollTop = target.dataset.end === "" ? Number(target.dataset.top) : log.scrollHeight;
});
// A question that is being answered is not drawn anew under the person's hands, unless it is another one.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  if (part.id === "question" && part.contains(document.activeElement)) event.preventDefault();
  if (part.id === "log") {
    const log = part.querySelector(".log");
    if (log && log.scrollHeight - log.scrollTop - log.clientHeight >= 40) event.preventDefault();
  }
});
document.addEventListener("DOMContentLoaded", () => {
  for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
});

// One connection tells all tabs of a browser, which has six to a server: the tab that holds the lock has it, and another
// tab takes it over when that one closes. Each tab draws the parts anew whose marks are not those that it shows.
const channel = "BroadcastChannel" in window ? new BroadcastChannel("tune-marks") : null;
let newest = null;
function compare(marks) {
  newest = marks;
  const shown = JSON.parse(document.body.dataset.marks);
  document.body.dataset.marks = JSON.stringify(marks);
  for (const part of Object.keys(marks)) {
    if (marks[part] !== shown[part]) htmx.trigger(`#${part}`, `tune:${part}`);
  }
}
function listen() {
  const source = new EventSource("/events");
  source.onmessage = (event) => {
    compare(JSON.parse(event.data));
    if (channel) channel.postMessage(newest);
  };
  if (channel) channel.onmessage = () => newest && channel.postMessage(newest);
  return new Promise(() => {});
}
document.addEventListener("DOMContentLoaded", () => {
  if (!channel || !navigator.locks) return listen();
  channel.onmessage = (event) => event.data && compare(event.data);
  navigator.locks.request("tune-events", listen);
  channel.postMessage(null); // a tab that is new asks what it has missed since it was drawn
});
