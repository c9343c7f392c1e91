// Where the landmark is: the same reading of the three heads as in Python, for one image.
//   heat   [h, w]      logits: the centre lies in or near this cell
//   offset [2, h, w]   x and y from the cell's middle to the centre, in cells
//   real   [h/2, w/2]  logits: the shape here is the marker and no decoy

export const STRIDE_PX = 4;

const DECOY_LOGIT = -4;
const DECOY_REACH_CELLS = 2;

// {x, y} in px of the image, and the best cell's `evidence`, where heat and kind together are highest.
export function locate({ heat, offset, real }, height, width) {
  const kind = doubled(real, height / 2, width / 2);
  let best = 0;
  let evidence = -Infinity;
  for (let cell = 0; cell < height * width; cell++) {
    const found = logSigmoid(heat[cell]) + logSigmoid(kind[cell]);
    if (found > evidence) [best, evidence] = [cell, found];
  }
  return { ...around(heat, offset, height, width, best), evidence };
}

// What a cell and its eight neighbours say of the centre, each weighted by its heat.
function around(heat, offset, height, width, best) {
  const near = [];
  const [row, column] = [Math.floor(best / width), best % width];
  for (let r = Math.max(0, row - 1); r <= Math.min(height - 1, row + 1); r++) {
    for (let c = Math.max(0, column - 1); c <= Math.min(width - 1, column + 1); c++) near.push([r, c]);
  }
  const highest = Math.max(...near.map(([r, c]) => heat[r * width + c]));
  let [x, y, sum] = [0, 0, 0];
  for (const [r, c] of near) {
    const cell = r * width + c;
    const weight = Math.exp(heat[cell] - highest);
    x += weight * (c + 0.5 + offset[cell]);
    y += weight * (r + 0.5 + offset[height * width + cell]);
    sum += weight;
  }
  return { x: (STRIDE_PX * x) / sum, y: (STRIDE_PX * y) / sum };
}

// Shapes that the kind head [height, width] takes for decoys, as [{x, y}] in px: the surest cell comes first, and takes
// those around it with it.
export function findDecoys(real, height, width) {
  const order = [...real.keys()].filter((cell) => real[cell] < DECOY_LOGIT).sort((a, b) => real[a] - real[b] || a - b);
  const kept = [];
  for (const cell of order) {
    const [row, column] = [Math.floor(cell / width), cell % width];
    const apart = ([r, c]) => Math.max(Math.abs(row - r), Math.abs(column - c)) > DECOY_REACH_CELLS;
    if (kept.every(apart)) kept.push([row, column]);
  }
  return kept.map(([row, column]) => {
    let [x, y, sum] = [0, 0, 0];
    for (let r = Math.max(0, row - 1); r <= Math.min(height - 1, row + 1); r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(width - 1, column + 1); c++) {
        const weight = Math.max(-real[r * width + c], 0);
        x += weight * (c + 0.5);
        y += weight * (r + 0.5);
        sum += weight;
      }
    }
    return { x: (2 * STRIDE_PX * x) / sum, y: (2 * STRIDE_PX * y) / sum };
  });
}

// Bilinear, half-pixel centres, edges clamped: [h, w] -> [2h, 2w].
export function doubled(map, height, width) {
  const out = new Float64Array(4 * height * width);
  for (let r = 0; r < 2 * height; r++) {
    const [nearRow, farRow] = pair(r, height);
    for (let c = 0; c < 2 * width; c++) {
      const [nearColumn, farColumn] = pair(c, width);
      const near = 3 * map[nearRow * width + nearColumn] + map[nearRow * width + farColumn];
      const far = 3 * map[farRow * width + nearColumn] + map[farRow * width + farColumn];
      out[r * 2 * width + c] = (3 * near + far) / 16;
    }
  }
  return out;
}

function pair(index, count) {
  const near = index >> 1;
  return [near, Math.min(count - 1, Math.max(0, near + (index % 2 ? 1 : -1)))];
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

const logSigmoid = (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
