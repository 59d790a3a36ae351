// What a person has opened, typed or chosen stays as it is when a part of the page is drawn anew.
document.addEventListener("htmx:beforeSwap", (event) => {
  const target = event.detail.target;
  target.dataset.open = JSON.stringify([...target.querySelectorAll("details[open]")].map((one) => one.id));
  const log = target.querySelector(".log");
  if (log) target.dataset.end = log.scrollHeight - log.scrollTop - log.clientHeight < 40 ? "1" : "";
  if (log) target.dataset.top = log.scrollTop;
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
