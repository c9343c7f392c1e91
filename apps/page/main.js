// The page: what the buttons do, and what it shows. Opened with `#auto` or `#auto=NAME` it does all of it by itself.

import { Runner } from "./runner.js";
import { showLandmarks } from "./landmarks.js";
import { get, post } from "./server.js";

const element = (id) => document.getElementById(id);
const [status, progress] = [element("status"), element("progress")];
const numbers = new Intl.NumberFormat("en");

let job;
let runner;
let opened;

// The worker with its models opened; made when it is first needed.
function ready() {
  if (opened === undefined) {
    runner = new Runner();
    opened = runner.ask("open", job, say).then(() => runner);
    opened.catch(forget);
  }
  return opened;
}

function forget() {
  runner?.stop();
  opened = runner = undefined;
}

function say(text, share) {
  status.textContent = text;
  progress.hidden = share === undefined;
  if (share !== undefined) progress.value = share;
}

// One visit: codes, times if `timed`, codes again, and the report.
async function visit(timed) {
  busy(true);
  for (const section of ["parity", "times"]) element(section).hidden = true;
  let name;
  try {
    ({ visit: name } = await post("visits"));
    show(await report(name, timed));
    say("Done. The result is with the machine that serves this page.");
  } catch (error) {
    forget();
    say(`It did not work: ${error.message}`);
    if (name !== undefined && error.message !== "stopped") await tell(name, error.message);
  } finally {
    busy(false);
  }
}

async function report(name, timed) {
  const working = await ready();
  const codes = (pass) => working.ask("check", { visit: name, pass }, ({ done, total }) => say("Comparing codes.", done / total));
  const wrong = await codes("before");
  const equal = job.models.every((model) => !model.exact || wrong[model.name] === 0);
  const facts = await working.ask("facts");
  for (const model of Object.values(facts.models)) Object.assign(model, { warmup_queries: 0, steady: false, turns: [] });
  let hidden = false;
  if (timed && equal) {
    const watch = watchVisibility();
    const times = await working.ask("time", job.plan, ({ warming, done, total }) =>
      warming === undefined ? say("Taking times. Keep this page in front.", done / total) : say(`Warming up ${warming}.`),
    );
    hidden = watch();
    for (const [model, taken] of Object.entries(times)) Object.assign(facts.models[model], taken);
    await codes("after");
  }
  return post(`visits/${name}/result`, JSON.stringify({ ...about(), ...facts, hidden, timed: timed && equal, failure: null }));
}

// Whether the page went out of sight: the returned function says so, and ends the watch. The screen is kept on if possible.
function watchVisibility() {
  let hidden = document.hidden;
  const look = () => (hidden ||= document.hidden);
  document.addEventListener("visibilitychange", look);
  const lock = navigator.wakeLock?.request("screen").catch(() => undefined);
  return () => {
    document.removeEventListener("visibilitychange", look);
    lock?.then((held) => held?.release());
    return hidden;
  };
}

const about = () => ({
  device: element("device").value,
  cores: navigator.hardwareConcurrency ?? 0,
  isolated: window.crossOriginIsolated === true,
});

const tell = (name, failure) =>
  post(
    `visits/${name}/result`,
    JSON.stringify({ ...about(), clock_step_ms: 0, hidden: false, timed: false, models: {}, failure }),
  ).catch(() => undefined);

function show(answer) {
  element("parity").hidden = false;
  verdict("verdict", answer.passed, answer.summary);
  rows("parity-rows", answer.parity, (row) => [
    row.output,
    numbers.format(row.compared),
    [numbers.format(row.mismatches), row.mismatches ? "bad" : "good"],
    `${row.largest}`,
  ]);
  element("sha").textContent = answer.sha256;
  if (answer.times.length === 0) return;
  element("times").hidden = false;
  verdict("valid", answer.valid, answer.verdict);
  element("reasons").replaceChildren(...answer.reasons.map((reason) => make("li", reason)));
  rows("time-rows", answer.times, (row) => [row.model, row.p50, row.interval, row.p90]);
  element("ratios").textContent = answer.ratios.join(" ");
  element("clock").textContent = answer.clock;
}

function verdict(id, good, text) {
  element(id).className = `verdict ${good ? "good" : "bad"}`;
  element(id).replaceChildren(make("span", text));
}

function rows(id, values, cells) {
  element(id).replaceChildren(
    ...values.map((value) => {
      const row = make("tr");
      for (const cell of cells(value)) {
        const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
        row.append(make("td", text, kind));
      }
      return row;
    }),
  );
}

function make(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = kind;
  return made;
}

function busy(now) {
  for (const id of ["both", "check"]) element(id).disabled = now;
  element("stop").hidden = !now;
}

async function begin() {
  job = await (await get("job.json")).json();
  const models = job.models.map((model) => `${model.name} (${Math.round(model.bytes / 1024)} KiB)`).join(", ");
  element("what").textContent = `${job.title}: ${models}, ${job.images} golden inputs.`;
  element("both").addEventListener("click", () => visit(true));
  element("check").addEventListener("click", () => visit(false));
  element("stop").addEventListener("click", forget);
  if (job.landmarks) showLandmarks(job, ready);
  busy(false);
  say("Ready.");
  const auto = /^#auto(?:=(.*))?$/.exec(location.hash);
  if (auto) {
    element("device").value = decodeURIComponent(auto[1] ?? "");
    await visit(true);
  }
}

begin().catch((error) => say(`It did not work: ${error.message}`));
