// A photograph, the sample or the camera through the int8 network, and the answer drawn on it.

import { STRIDE_PX, findDecoys, locate, sigmoid } from "./decode.js";
import { get } from "./server.js";

const PRESENT = 0.3; // of the heat, for the marker to count as found
const SMOOTHING = 0.9; // of the frames per second
const SHARPNESS = 2; // pixels of the view for each of the network's

const element = (id) => document.getElementById(id);

export function showLandmarks(job, ready) {
  const [, , height, width] = job.inputs[0].shape;
  const input = canvas(width, height); // what the network sees
  const context = input.getContext("2d", { willReadFrequently: true });
  const view = element("view");
  [view.width, view.height] = [SHARPNESS * width, SHARPNESS * height];
  const cells = [height / STRIDE_PX, width / STRIDE_PX];
  let shown; // the last answer: floats of the heads, centre, ms of the inference
  let stream; // of the camera, while it is on
  let everyMs; // between two frames, smoothed
  let sample = 0;

  // The pixels in the input canvas through the network, and the answer drawn.
  async function run(codes) {
    const { floats, ms } = await (await ready()).ask("see", codes);
    shown = { floats, ms, centre: locate(floats, ...cells) };
    draw();
  }

  function draw() {
    if (shown === undefined) return;
    const { floats, ms, centre } = shown;
    const drawn = view.getContext("2d");
    drawn.setTransform(SHARPNESS, 0, 0, SHARPNESS, 0, 0);
    drawn.drawImage(input, 0, 0);
    if (element("overlay").checked) drawn.drawImage(heatMap(floats.heat, ...cells), 0, 0, width, height);
    const decoys = findDecoys(floats.real, cells[0] / 2, cells[1] / 2);
    for (const decoy of decoys) stroke(drawn, cross(decoy, height / 24), "#ffd24d");
    const found = strongest(floats.heat) >= PRESENT;
    if (found) stroke(drawn, target(centre, height / 16), "#3dff9a");
    const where = `centre at x ${centre.x.toFixed(2)}, y ${centre.y.toFixed(2)} px`;
    const others = decoys.length === 1 ? ", and a decoy" : decoys.length ? `, and ${decoys.length} decoys` : "";
    const text = (found ? `Found: ${where}` : `Nothing found; most likely ${where}`) + others;
    const rate = stream && everyMs ? `${(1000 / everyMs).toFixed(1)} frames per second` : `${ms.toFixed(0)} ms`;
    element("found").textContent = `${text}. ${rate}, int8, in this browser.`;
    view.setAttribute("aria-label", `The picture with the answer drawn on it. ${text}.`);
    Object.assign(view.dataset, { x: centre.x, y: centre.y, decoys: decoys.length });
  }

  async function guarded(work) {
    try {
      await work();
    } catch (error) {
      stopCamera();
      element("found").textContent = `It did not work: ${error.message}`;
    }
  }

  // The bundle's own golden inputs, one after another: the first are photographs.
  const showSample = async () => {
    stopCamera();
    const codes = new Int8Array(await (await get(`input/${sample}`)).arrayBuffer());
    sample = (sample + 1) % Math.min(job.images, 4);
    putCodes(context, codes, width, height);
    await run(codes);
  };

  const showPhoto = async () => {
    const file = element("photo").files[0];
    if (file === undefined) return;
    stopCamera();
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    cover(context, bitmap, bitmap.width, bitmap.height);
    await run(pixelCodes(context, width, height));
  };

  async function toggleCamera() {
    if (stream) return stopCamera();
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    element("camera").textContent = "Stop the camera";
    const video = document.createElement("video");
    Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    let before;
    while (stream) {
      cover(context, video, video.videoWidth, video.videoHeight);
      await run(pixelCodes(context, width, height));
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      if (before !== undefined) everyMs = everyMs === undefined ? now - before : SMOOTHING * everyMs + (1 - SMOOTHING) * (now - before);
      before = now;
    }
  }

  function stopCamera() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = everyMs = undefined;
    element("camera").textContent = "Camera";
  }

  element("landmarks").hidden = false;
  element("camera").hidden = !(window.isSecureContext && navigator.mediaDevices);
  element("sample").addEventListener("click", () => guarded(showSample));
  element("photo").addEventListener("change", () => guarded(showPhoto));
  element("camera").addEventListener("click", () => guarded(toggleCamera));
  element("overlay").addEventListener("change", draw);
}

function canvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

// Fills the context with the middle of a picture, as much of it as has the same shape.
function cover(context, picture, pictureWidth, pictureHeight) {
  const { width, height } = context.canvas;
  const scale = Math.max(width / pictureWidth, height / pictureHeight);
  const [w, h] = [pictureWidth * scale, pictureHeight * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
}

// The picture as the codes of `[1, 3, height, width]`: pixel minus 128.
function pixelCodes(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height);
  const area = width * height;
  const codes = new Int8Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (let channel = 0; channel < 3; channel++) codes[channel * area + i] = data[4 * i + channel] - 128;
  }
  return codes;
}

function putCodes(context, codes, width, height) {
  const area = width * height;
  const image = context.createImageData(width, height);
  for (let i = 0; i < area; i++) {
    for (let channel = 0; channel < 3; channel++) image.data[4 * i + channel] = codes[channel * area + i] + 128;
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Heat as a layer: nothing where there is none, warm where there is.
function heatMap(heat, height, width) {
  const layer = canvas(width, height);
  const context = layer.getContext("2d");
  const image = context.createImageData(width, height);
  for (let cell = 0; cell < width * height; cell++) {
    const share = sigmoid(heat[cell]);
    image.data.set([255, 90 + 150 * share, 0, 200 * Math.sqrt(share)], 4 * cell);
  }
  context.putImageData(image, 0, 0);
  return layer;
}

const strongest = (heat) => sigmoid(heat.reduce((most, value) => Math.max(most, value), -Infinity));

// A ring with four arms.
function target({ x, y }, radius) {
  const path = new Path2D();
  path.arc(x, y, radius, 0, 2 * Math.PI);
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    path.moveTo(x + dx * radius * 0.35, y + dy * radius * 0.35);
    path.lineTo(x + dx * radius * 1.5, y + dy * radius * 1.5);
  }
  return path;
}

function cross({ x, y }, radius) {
  const path = new Path2D();
  for (const side of [1, -1]) {
    path.moveTo(x - radius, y - side * radius);
    path.lineTo(x + radius, y + side * radius);
  }
  return path;
}

// Light on dark, to be seen on any picture.
function stroke(context, path, colour) {
  for (const [style, size] of [["#08131f", 4], [colour, 2]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: size, lineCap: "round" });
    context.stroke(path);
  }
}
