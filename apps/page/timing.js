// Times that can be believed: a warm-up until it is steady, then turns in which one model runs again and again.
// Browsers make their clocks coarse on purpose, so a turn is long and its mean is the sample.

// The smallest step that the clock is seen to take, in ms.
export function clockStep(now = () => performance.now(), forMs = 40) {
  const end = now() + forMs;
  let smallest = forMs;
  for (let last = now(); last < end; ) {
    const next = now();
    if (next > last) {
      smallest = Math.min(smallest, next - last);
      last = next;
    }
  }
  return smallest;
}

// Runs until two windows in a row agree; `run` makes one query.
export async function warmUp(run, plan, now = () => performance.now()) {
  const begun = now();
  let queries = 0;
  let before = null;
  for (;;) {
    const window = await turn(run, plan.turn_ms / 3, plan.warmup_queries, now);
    queries += window.queries;
    const mean = window.ms / window.queries;
    if (before !== null && Math.abs(mean / before - 1) <= plan.steady) return { queries, steady: true };
    if (now() - begun > plan.warmup_ms) return { queries, steady: false };
    before = mean;
  }
}

// Turns of every model, alternating, each other round in reverse: {name: [[queries, ms], ...]}.
export async function alternate(runs, plan, progress = () => {}, now = () => performance.now()) {
  const names = Object.keys(runs);
  const turns = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < plan.turns; round++) {
    for (const name of round % 2 ? [...names].reverse() : names) {
      const { queries, ms } = await turn(runs[name], plan.turn_ms, 1, now);
      turns[name].push([queries, ms]);
    }
    progress(round + 1, plan.turns);
  }
  return turns;
}

async function turn(run, leastMs, leastQueries, now) {
  const begun = now();
  let queries = 0;
  for (;;) {
    await run();
    queries++;
    const ms = now() - begun;
    if (ms >= leastMs && queries >= leastQueries) return { queries, ms };
  }
}
