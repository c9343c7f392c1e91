// Tells whether ONNX Runtime Web in this browser computes the integer function: runs the golden inputs of a bundle,
// hashes the codes.
//
//   import { selfCheck } from "./self_check.mjs";
//   if (!(await selfCheck("bundle"))) ...      where the page's own server has the bundle
//
// It needs npm's onnxruntime-web, and https, without which browsers have no `crypto.subtle`.

import * as ort from "onnxruntime-web";

// An input or output in the manifest: how many values an image has, and where a value of the border is in NCHW.
function tensor({ name, shape, scale, zero_point }, { layout }) {
  const [count, channels, height, width] = shape;
  const last = layout === "NHWC";
  const planar = (place) => (last ? (place % channels) * height * width + Math.floor(place / channels) : place);
  const dims = last ? [count, height, width, channels] : shape;
  return { name, dims, scale, zero_point, planar, elements: channels * height * width };
}

// Resolves to whether the codes are the golden ones; `artifact` is `onnx` or `onnx-codes`.
export async function selfCheck(bundle, artifact = "onnx") {
  const read = async (path) => {
    const reply = await fetch(`${bundle}/${path}`);
    if (!reply.ok) throw new Error(`${reply.url} cannot be read: ${reply.status}`);
    return reply.arrayBuffer();
  };
  const manifest = JSON.parse(new TextDecoder().decode(await read("manifest.json")));
  const { file, border } = manifest.artifacts[artifact];
  const inputs = manifest.inputs.map((said) => tensor(said, border));
  const outputs = manifest.outputs.map((said) => tensor(said, border));
  const floats = border.dtype === "float32";
  const toValue = floats ? (code, x) => x.scale * (code - x.zero_point) : (code) => code + border.offset;
  const toCode = floats ? (value, y) => Math.round(value / y.scale) + y.zero_point : (value) => value - border.offset;
  const session = await ort.InferenceSession.create(await read(file));

  const golden = await Promise.all(inputs.map(async (_, i) => new Int8Array(await read(`golden/input-${i}.i8`))));
  const images = golden[0].length / inputs[0].elements;
  const codes = outputs.map((y) => new Int8Array(images * y.elements));
  for (let image = 0; image < images; image++) {
    const feeds = {};
    inputs.forEach((x, i) => {
      const asked = golden[i].subarray(image * x.elements);
      const values = floats ? new Float32Array(x.elements) : new Uint8Array(x.elements);
      values.forEach((_, place) => (values[place] = toValue(asked[x.planar(place)], x)));
      feeds[x.name] = new ort.Tensor(border.dtype, values, x.dims);
    });
    const answers = await session.run(feeds);
    outputs.forEach((y, o) => {
      const found = codes[o].subarray(image * y.elements);
      answers[y.name].data.forEach((value, place) => (found[y.planar(place)] = toCode(value, y)));
    });
  }
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(codes).arrayBuffer());
  const hex = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === manifest.golden_sha256;
}
