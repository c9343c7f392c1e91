// Runs the models, off the page's own thread: opens them, compares their codes by way of the server, takes times.

import "./memory.js";
import * as ort from "./ort.mjs";
import { dequantize, fromChannelsLast, toBorder, toChannelsLast, toCodes, volume } from "./border.js";
import { get, post } from "./server.js";
import { alternate, clockStep, warmUp } from "./timing.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };
ort.env.logLevel = "error";

let job;
const models = new Map();

const methods = {
  // Loads every model; a first session is thrown away, because with it the WebAssembly itself is loaded.
  async open(given, progress) {
    job = given;
    for (const model of job.models) {
      progress(`loading ${model.name}`);
      const content = new Uint8Array(await (await get(`model/${model.name}`)).arrayBuffer());
      if (models.size === 0) await (await create(content)).release();
      const begun = performance.now();
      const session = await create(content);
      const load_ms = performance.now() - begun;
      const opened = { ...model, session, load_ms };
      const feeds = feedsOf(opened, await question(0));
      const started = performance.now();
      await session.run(feeds);
      models.set(model.name, { ...opened, feeds, first_ms: performance.now() - started });
    }
  },

  // Every golden input through every model; the codes go to the server, which compares them.
  async check({ visit, pass }, progress) {
    const wrong = {};
    const total = models.size * job.images;
    let done = 0;
    for (let index = 0; index < job.images; index++) {
      const codes = await question(index);
      for (const model of models.values()) {
        const answer = await predict(model, codes);
        const { mismatches } = await post(`visits/${visit}/codes/${pass}/${model.name}/${index}`, answer);
        wrong[model.name] = (wrong[model.name] ?? 0) + mismatches;
        progress({ done: ++done, total });
      }
    }
    return wrong;
  },

  async time(plan, progress) {
    const runs = {};
    const warm = {};
    for (const model of models.values()) {
      runs[model.name] = () => model.session.run(model.feeds);
      progress({ warming: model.name });
      warm[model.name] = await warmUp(runs[model.name], plan);
    }
    const turns = await alternate(runs, plan, (done, total) => progress({ done, total }));
    return Object.fromEntries(
      [...models.keys()].map((name) => [
        name,
        { warmup_queries: warm[name].queries, steady: warm[name].steady, turns: turns[name] },
      ]),
    );
  },

  facts() {
    const times = [...models.values()].map(({ name, load_ms, first_ms }) => [name, { load_ms, first_ms }]);
    return { clock_step_ms: clockStep(), models: Object.fromEntries(times) };
  },

  // The outputs of the first model for one input's codes, as floats by name.
  async see(codes) {
    const model = models.values().next().value;
    const begun = performance.now();
    const answer = await predict(model, [codes]);
    const ms = performance.now() - begun;
    let start = 0;
    const floats = {};
    for (const spec of job.outputs) {
      floats[spec.name] = dequantize(answer.subarray(start, (start += volume(spec))), spec);
    }
    return { floats, ms };
  },
};

const create = (content) =>
  ort.InferenceSession.create(content, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });

async function question(index) {
  const bytes = await (await get(`input/${index}`)).arrayBuffer();
  let start = 0;
  return job.inputs.map((spec) => new Int8Array(bytes, (start += volume(spec)) - volume(spec), volume(spec)));
}

function feedsOf({ session, layout }, codes) {
  const tensors = job.inputs.map((spec, i) => {
    const type = session.inputMetadata[i].type;
    const [count, channels, height, width] = spec.shape;
    const last = layout === "NHWC";
    const values = toBorder(last ? toChannelsLast(codes[i], spec) : codes[i], spec, type);
    const shape = last ? [count, height, width, channels] : spec.shape;
    return [session.inputNames[i], new ort.Tensor(type, values, shape)];
  });
  return Object.fromEntries(tensors);
}

// One inference: the codes of all outputs, one after another.
async function predict(model, codes) {
  const found = await model.session.run(feedsOf(model, codes));
  const answer = new Int8Array(job.outputs.reduce((sum, spec) => sum + volume(spec), 0));
  let start = 0;
  job.outputs.forEach((spec, i) => {
    const tensor = found[model.session.outputNames[i]];
    const codes = toCodes(tensor.data, spec, tensor.type, model.exact);
    answer.set(model.layout === "NHWC" ? fromChannelsLast(codes, spec) : codes, start);
    start += volume(spec);
  });
  return answer;
}

onmessage = async ({ data: { id, method, argument } }) => {
  try {
    const result = await methods[method](argument, (progress) => postMessage({ id, progress }));
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};
