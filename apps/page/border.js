// Between int8 codes and what an artifact has at its border: float32 values, or codes as int8 or uint8.

const TOLERANCE = 1e-3; // steps: what float32 rounding explains

export const volume = (spec) => spec.shape.reduce((product, size) => product * size, 1);

// Int8Array -> the array of a tensor of `type`.
export function toBorder(codes, spec, type) {
  if (type === "int8") return codes;
  if (type === "uint8") return Uint8Array.from(codes, (code) => code + 128);
  if (type !== "float32") throw new Error(`the model has an input of ${type}: float32, int8 and uint8 are known`);
  return dequantize(codes, spec);
}

// The array of a tensor of `type` -> Int8Array. An exact model's floats have to lie on the grid.
export function toCodes(values, spec, type, exact) {
  if (values.length !== volume(spec)) {
    throw new Error(`${spec.name} has ${values.length} values, the manifest says ${volume(spec)}`);
  }
  if (type === "int8") return values;
  if (type === "uint8") return Int8Array.from(values, (value) => value - 128);
  if (type !== "float32") throw new Error(`the model has an output of ${type}: float32, int8 and uint8 are known`);
  const codes = new Int8Array(values.length);
  let worst = 0;
  for (let i = 0; i < values.length; i++) {
    const steps = values[i] / spec.scale;
    const code = Math.min(127, Math.max(-128, roundHalfEven(steps) + spec.zero_point));
    codes[i] = code;
    const off = Math.abs(steps - (code - spec.zero_point));
    if (!(off <= worst)) worst = off; // also where it is not a number
  }
  if (exact && !(worst < TOLERANCE)) {
    throw new Error(`${spec.name} is ${worst} steps off its grid: the model computes another function`);
  }
  return codes;
}

// The codes of `[1, C, H, W]`, with the channels of a cell side by side.
export const toChannelsLast = (codes, { shape: [, channels, height, width] }) =>
  transposed(codes, channels, height * width);

// And back.
export const fromChannelsLast = (codes, { shape: [, channels, height, width] }) =>
  transposed(codes, height * width, channels);

export function dequantize(codes, spec) {
  const scale = Math.fround(spec.scale);
  return Float32Array.from(codes, (code) => scale * (code - spec.zero_point));
}

function transposed(values, rows, columns) {
  const found = new values.constructor(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) found[column * rows + row] = values[row * columns + column];
  }
  return found;
}

function roundHalfEven(x) {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
