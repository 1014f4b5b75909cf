/** Doing something again and again while the reader looks, and rarely while the page is hidden. */

const HIDDEN = 10000;

/** Wait, but no longer than until `signal`, if there is one, is aborted. */
export function pauseFor(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end);
  });
}

/** Call `work` now and every `pause` milliseconds after its end, until `signal` is aborted or it returns `false`. */
export async function repeat(work, pause, signal) {
  while (!signal.aborted) {
    if ((await work()) === false) return;
    await pauseFor(document.hidden ? HIDDEN : pause, signal);
  }
}
