// The worker, as functions that return promises.

export class Runner {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #asked = new Map();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, progress, result, error } }) => {
      const asked = this.#asked.get(id);
      if (progress !== undefined) return asked.progress(progress);
      this.#asked.delete(id);
      if (error === undefined) asked.resolve(result);
      else asked.reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      const error = new Error(event.message || "the worker could not be started: this browser may be too old");
      for (const asked of this.#asked.values()) asked.reject(error);
      this.#asked.clear();
    };
  }

  // `method` is one of the worker's; `progress` is told how far it is.
  ask(method, argument, progress = () => {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject, progress });
      this.#worker.postMessage({ id, method, argument });
    });
  }

  stop() {
    this.#worker.terminate();
    for (const asked of this.#asked.values()) asked.reject(new Error("stopped"));
    this.#asked.clear();
  }
}
