// The page of the admin routes. Whatever a client chose (endpoints, bodies, reasons) goes through `textContent` and never
// becomes HTML; the Content-Security-Policy forbids the functions that would make it so.

const REFRESH = 5000;
const $ = (selector) => document.querySelector(selector);

function api(path) {
  const url = new URL(`api/${path}`, document.baseURI);
  // Where the page was opened as `https://name:password@…`: `fetch` refuses such addresses, and the browser knows both.
  url.username = "";
  url.password = "";
  return url;
}

// The page's state is in its address: filters and the open record.
const address = () => new URLSearchParams(location.search);

function go(changes) {
  const query = address();
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  // Not relative: relative addresses begin at the page's base.
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
}

class Refused extends Error {}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(api(path), { ...options, cache: "no-store" });
  const type = response.headers.get("content-type") ?? "";
  if (!type.includes("json")) throw new Refused(`the service answered ${response.status}`);
  const answer = await response.json();
  if (response.ok) return answer;
  const candidates = (answer.candidates ?? []).map((id) => `\n${id}`).join("");
  throw new Refused(`${answer.detail ?? answer.title ?? response.status}${candidates}`);
}

// What is shown.

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** A span of time by its two largest units. */
function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const parts = [];
  for (const [unit, size] of units) {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    if (count) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0s";
}

const time = (text) => (text ? text.replace("T", " ") : "–");

function state(record) {
  if (record.unknown_for_seconds !== null) return `unknown for ${span(record.unknown_for_seconds)}`;
  if (record.lease_left_seconds !== null) return `in flight, lease ${span(record.lease_left_seconds)}`;
  return record.state;
}

function link(record) {
  const shown = element("a", record.id.slice(0, 16));
  const query = address();
  query.set("record", record.id);
  shown.href = `${location.pathname}?${query}`;
  shown.addEventListener("click", (event) => {
    event.preventDefault();
    open(record.id);
  });
  return shown;
}

const ID = ["ID", link];
const STATE = ["State", state, (record) => record.state];
const ENDPOINT = ["Endpoint", (record) => record.endpoint ?? "–"];
const ATTEMPT = ["Attempt", (record) => record.attempt];
const CREATED = ["Claimed (UTC)", (record) => time(record.created_at)];
const EXPIRES = ["Expires in", (record) => span(record.expires_in_seconds)];
const BYTES = ["Bytes", (record) => record.stored_bytes];

const COLUMNS = {
  unknown: [ID, ["Unknown for", (record) => span(record.unknown_for_seconds)], ENDPOINT, ATTEMPT, CREATED, EXPIRES],
  "in-flight": [ID, ["Lease left", (record) => span(record.lease_left_seconds)], ENDPOINT, ATTEMPT, CREATED],
  records: [ID, STATE, ENDPOINT, ATTEMPT, CREATED, EXPIRES, BYTES],
  audit: [
    ["Time (UTC)", (event) => time(event.at)],
    ["Who", (event) => event.actor],
    ["What", (event) => event.action],
    ["Stage", (event) => event.stage, (event) => event.stage],
    ["Record", (event) => link({ id: event.record })],
    ["Before", (event) => event.before],
    ["After", (event) => event.after],
    ["Reason", (event) => event.reason],
  ],
};

function table(place, rows, none) {
  const target = $(`#${place}`);
  if (!rows.length) return target.replaceChildren(element("p", none, "none"));
  const columns = COLUMNS[place];
  const made = element("table");
  const heading = element("tr");
  heading.append(...columns.map(([label]) => Object.assign(element("th", label), { scope: "col" })));
  made.createTHead().append(heading);
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [label, show, classOf] of columns) {
      const cell = line.insertCell();
      cell.dataset.label = label;
      if (classOf) cell.className = classOf(row);
      cell.append(show(row));
    }
  }
  return target.replaceChildren(made);
}

function facts(target, pairs) {
  target.replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function count(name, value) {
  $(`[data-count="${name}"]`).textContent = value;
}

const SVG = "http://www.w3.org/2000/svg";

/** Bars of each minute, the layers of a bar on each other. */
function plot(id, minutes, layers, unit) {
  const figure = $(`#${id}`);
  const total = (minute) => layers.reduce((sum, [, value]) => sum + (value(minute) ?? 0), 0);
  const most = Math.max(...minutes.map(total));
  const some = minutes.some((minute) => layers.some(([, value]) => value(minute) !== null));
  const drawn = document.createElementNS(SVG, "svg");
  const width = 10;
  drawn.setAttribute("viewBox", `0 0 ${minutes.length * width} 100`);
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", `at most ${unit(most)} a minute in the last hour`);
  minutes.forEach((minute, index) => {
    let below = 0;
    for (const [className, value] of layers) {
      const height = most ? ((value(minute) ?? 0) / most) * 94 : 0;
      if (!height) continue;
      const bar = document.createElementNS(SVG, "rect");
      bar.setAttribute("class", className);
      bar.setAttribute("x", index * width + 1);
      bar.setAttribute("width", width - 2);
      bar.setAttribute("y", 100 - below - height);
      bar.setAttribute("height", height);
      const title = document.createElementNS(SVG, "title");
      title.textContent = `${time(minute.at)}: ${unit(value(minute))} ${className === "span" ? "" : className}`;
      bar.append(title);
      drawn.append(bar);
      below += height;
    }
  });
  const scale = element("div", undefined, "scale");
  scale.append(element("span", "1h ago"), element("span", some ? `most ${unit(most)}` : "none"), element("span", "now"));
  figure.replaceChildren(figure.querySelector("figcaption"), drawn, scale);
}

// What is asked for.

let writes = false;
/** Where the list of all records goes on, and the page of it that is shown. */
let next = null;
let after = null;

async function showAccess() {
  const access = await ask("access");
  writes = access.writes;
  const may = writes ? `${access.actor}, may write` : `${access.actor ? `${access.actor}, ` : ""}read only`;
  $("#who").textContent = `${access.store} store · ${may}`;
}

async function showCounts() {
  const stats = await ask("stats");
  const number = (value) => `${stats.exact ? "" : "≈ "}${value.toLocaleString("en")}`;
  for (const name of ["unknown", "in_flight", "completed", "tombstones"]) count(name, number(stats[name]));
  $("#counts .unknown").classList.toggle("some", stats.unknown > 0);
}

async function showUnknown() {
  const { records, next: more } = await ask("records?state=unknown");
  const none = more ? "None among the records looked at; list them below to look further." : "No outcome is unknown.";
  table("unknown", records, none);
  count("oldest", records.length ? span(records[0].unknown_for_seconds) : "–");
  $("#counts .oldest").classList.toggle("some", records.length > 0);
}

async function showInFlight() {
  const { records } = await ask("records?state=in-flight");
  table("in-flight", records, "Nothing is in flight.");
}

async function showSeries() {
  const { minutes, records, complete } = await ask("series");
  $("#sample").textContent = complete ? "" : `of a sample of ${records.toLocaleString("en")} records`;
  const number = (value) => value.toLocaleString("en");
  plot("plot-outcomes", minutes, [["completed", (m) => m.completed], ["tombstone", (m) => m.tombstones]], number);
  const seconds = (value) => (value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
  plot("plot-p99", minutes, [["span", (m) => m.p99_seconds]], seconds);
  plot("plot-unknown", minutes, [["unknown", (m) => m.unknown]], number);
}

async function showRecords() {
  const query = new URLSearchParams();
  for (const name of ["state", "endpoint", "older_than"]) {
    const value = address().get(name);
    if (value) query.set(name, value);
  }
  if (after) {
    query.set("after", after);
    query.set("max_scan", "1000000");
  }
  const answer = await ask(`records?${query}`);
  next = answer.next;
  table("records", answer.records, next ? "None among the records looked at so far." : "No record matches.");
  $("#next").hidden = !next;
}

async function showAudit() {
  const { events } = await ask("audit");
  table("audit", events, "Nobody has changed anything.");
}

async function showRecord() {
  const id = address().get("record");
  if (!id) {
    $("#detail").hidden = true;
    return;
  }
  try {
    const record = await ask(`records/${encodeURIComponent(id)}`);
    if (address().get("record") !== id) return;
    if (record.id !== id) go({ record: record.id });
    describe(record);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    facts($("#facts"), [["ID", id], ["State", error.message]]);
    forms(false, false);
  }
  $("#detail").hidden = false;
}

function describe(record) {
  facts($("#facts"), [
    ["ID", record.id],
    ["State", state(record)],
    ["Endpoint", record.endpoint ?? "not known"],
    ["Attempt", `${record.attempt}${record.mode === "transactional" ? ", in a transaction" : ""}`],
    ["Caller", record.caller ?? "not known"],
    ["Claimed", time(record.created_at)],
    ["Completed", time(record.completed_at)],
    ["Expires in", span(record.expires_in_seconds)],
    ["Stored bytes", record.stored_bytes],
    ["Trace", record.trace_id ?? "–"],
  ]);
  forms(record.state === "unknown", record.state === "completed", record.state === "tombstone");
}

/** Which forms the record has; what somebody typed into them stays. */
function forms(unknown, completed, tombstone) {
  $("#resolve").hidden = !(writes && unknown);
  $("#reveal").hidden = !(writes && completed);
  $("#forget").hidden = !(writes && (completed || tombstone));
}

function open(id) {
  go({ record: id });
  $("#outcome").textContent = "";
  $("#revealed").hidden = true;
  $("#revealed pre").textContent = "";
  for (const form of document.querySelectorAll("#detail form")) form.reset();
  $("#response").hidden = true;
  return attempt(async () => {
    await showRecord();
    if (id) $("#detail").focus();
  });
}

// What is done.

/** The JSON of the response form. */
function response(form) {
  const lines = form.elements.headers.value.split("\n").filter((line) => line.trim());
  const headers = lines.map((line) => {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Refused(`a header is written as "Name: value"`);
    return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
  });
  return { status: Number(form.elements.status.value), headers, body: form.elements.body.value };
}

/** Has a form do something to the open record, once at a time. */
function acts(form, act) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    button.disabled = true;
    try {
      await act(event.target, address().get("record"));
    } catch (error) {
      $("#outcome").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
}

acts("#resolve", async (form, id) => {
  const act = form.elements.happened.value;
  const order = { reason: form.elements.reason.value };
  if (act === "resolve") order.response = response(form);
  const { done } = await ask(`records/${id}/${act}`, order);
  form.reset();
  await again();
  $("#outcome").textContent = `${done} ${id.slice(0, 16)}`;
});

acts("#forget", async (form, id) => {
  const { done } = await ask(`records/${id}/forget`, { reason: form.elements.reason.value });
  form.reset();
  await again();
  $("#outcome").textContent = `${done} ${id.slice(0, 16)}`;
});

acts("#reveal", async (form, id) => {
  const shown = await ask(`records/${id}/reveal`, { reason: form.elements.reason.value });
  form.reset();
  if (address().get("record") !== id) return;
  const headers = shown.headers.map(([name, value]) => ["Header", `${name}: ${value}`]);
  facts($("#revealed dl"), [["Status", shown.status ?? "–"], ...headers]);
  $("#revealed pre").textContent = (shown.body_is_hexadecimal ? "hexadecimal: " : "") + (shown.body ?? "");
  $("#revealed").hidden = false;
  await attempt(showAudit);
});

$("#resolve").addEventListener("change", (event) => {
  $("#response").hidden = event.currentTarget.elements.happened.value !== "resolve";
});

$("#lookup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const fields = event.target.elements;
  const sent = { endpoint: fields.endpoint.value, caller: fields.caller.value || null, key: fields.key.value };
  // The key is a secret: it stays neither on the page nor in its address.
  fields.key.value = "";
  const found = $("#found");
  found.textContent = "";
  try {
    const { records } = await ask("lookup", sent);
    if (records.length > 1) {
      found.append("One under each secret: ", ...records.flatMap((record) => [link(record), ` ${state(record)} `]));
    }
    await open(records[0].id);
  } catch (error) {
    found.textContent = error.message;
  }
});

$("#by-id").addEventListener("submit", (event) => {
  event.preventDefault();
  open(event.target.elements.id.value.trim().toLowerCase());
});

$("#filters").addEventListener("submit", (event) => {
  event.preventDefault();
  after = null;
  go(Object.fromEntries(new FormData(event.target)));
  attempt(showRecords);
});

$("#next").addEventListener("click", () => {
  after = next;
  attempt(showRecords);
});

$("#close").addEventListener("click", () => open(null));

// How it stays fresh.

let timer = null;
let refreshing = null;

async function attempt(show) {
  try {
    await show();
    return null;
  } catch (error) {
    return fail(error);
  }
}

function fail(error) {
  $("#error").textContent = error.message;
  $("#error").hidden = false;
  return error;
}

async function showAll() {
  // One after the other: the service scans for one request at a time. A later page of a list stays as it is.
  const parts = [showCounts, showUnknown, showInFlight, showRecord, showSeries, showAudit];
  if (!after) parts.push(showRecords);
  let failed = await attempt(showAccess);
  for (const part of parts) failed = (await attempt(part)) ?? failed;
  if (!failed) $("#error").hidden = true;
  $("#status").textContent = `${failed ? "failed" : "fresh"} at ${new Date().toISOString().slice(11, 19)} UTC`;
}

/** Asks for everything again, and then every few seconds while somebody can see it. */
function refresh() {
  clearTimeout(timer);
  refreshing ??= showAll().finally(() => {
    refreshing = null;
    if (!document.hidden) timer = setTimeout(refresh, REFRESH);
  });
  return refreshing;
}

/** The same after something was done, which a refresh under way may not have seen. */
async function again() {
  await refreshing;
  await refresh();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    $("#status").textContent += " (paused)";
  } else {
    refresh();
  }
});

for (const name of ["state", "endpoint", "older_than"]) {
  $("#filters").elements[name].value = address().get(name) ?? "";
}
refresh();
