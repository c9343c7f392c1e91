// Talks to the machine that serves this page, and to nothing else.

const TRIES = 4;

export async function get(path) {
  const response = await ask(path, {});
  if (!response.ok) throw new Error(`the server has no ${path} (${response.status}): open its address again`);
  return response;
}

export async function post(path, body) {
  const response = await ask(path, { method: "POST", body });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `the server refused ${path} (${response.status})`);
  return answer;
}

// A busy access point loses a connection now and then.
async function ask(path, options) {
  for (let tried = 1; ; tried++) {
    try {
      const response = await fetch(path, options);
      if (response.status !== 503 || tried === TRIES) return response;
    } catch (error) {
      if (tried === TRIES) throw new Error(`the server cannot be reached (${error.message}): is it still running?`);
    }
    await new Promise((resolve) => setTimeout(resolve, 500 * tried));
  }
}
