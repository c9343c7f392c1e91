// Tells whether ONNX Runtime Web in this browser computes the integer function: runs the golden inputs of a bundle,
// hashes the codes.
//
//   import { selfCheck } from "./self_check.mjs";
//   if (!(await selfCheck("bundle"))) ...      where the page's own server has the bundle
//
// It needs npm's onnxruntime-web, and https, without which browsers have no `crypto.subtle`.

import * as ort from "onnxruntime-web";

const elements = (tensor) => tensor.shape.reduce((product, size) => product * size);

// Resolves to whether the codes are the golden ones; `artifact` is `onnx` or `onnx-codes`.
export async function selfCheck(bundle, artifact = "onnx") {
  const read = async (path) => {
    const reply = await fetch(`${bundle}/${path}`);
    if (!reply.ok) throw new Error(`${reply.url} cannot be read: ${reply.status}`);
    return reply.arrayBuffer();
  };
  const manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
  const { inputs, outputs } = manifest;
  const { file, border } = manifest.artifacts[artifact];
  const floats = border.dtype === "float32";
  const toGiven = floats ? (code, x) => x.scale * (code - x.zero_point) : (code) => code + border.offset;
  const toCode = floats ? (real, y) => Math.round(real / y.scale) + y.zero_point : (value) => value - border.offset;
  const Given = floats ? Float32Array : Uint8Array;
  const session = await ort.InferenceSession.create(await read(file));

  const golden = await Promise.all(inputs.map(async (_, i) => new Int8Array(await read(`golden/input-${i}.i8`))));
  const images = golden[0].length / elements(inputs[0]);
  const codes = outputs.map((y) => new Int8Array(images * elements(y)));
  for (let image = 0; image < images; image++) {
    const feeds = {};
    inputs.forEach((x, i) => {
      const asked = golden[i].subarray(image * elements(x), (image + 1) * elements(x));
      feeds[x.name] = new ort.Tensor(border.dtype, Given.from(asked, (code) => toGiven(code, x)), x.shape);
    });
    const answers = await session.run(feeds);
    outputs.forEach((y, o) => {
      codes[o].set(Int8Array.from(answers[y.name].data, (value) => toCode(value, y)), image * elements(y));
    });
  }
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(codes).arrayBuffer());
  const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === manifest.golden_sha256;
}
