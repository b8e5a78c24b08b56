// Durations as Go and Kubernetes write them: 1h30m, -1.5s, 250ms.

const MILLISECONDS = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };
const DURATION = /^([+-]?)((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)$/;
const PART = /(\d+(?:\.\d+)?)(ms|h|m|s)/g;

/** The milliseconds that a text such as 1h30m stands for. Throws a SyntaxError for any other text. */
export function parseDuration(text) {
  if (text === '0') return 0;
  const [whole, sign, parts] = DURATION.exec(text) ?? [];
  if (whole === undefined) throw new SyntaxError(`not a duration: ${JSON.stringify(text)}`);
  const total = [...parts.matchAll(PART)].reduce((sum, [, number, unit]) => sum + Number(number) * MILLISECONDS[unit], 0);
  return Math.round(sign === '-' ? -total : total);
}

/** The text that parseDuration reads back as the same number. Throws a RangeError for what is no whole number. */
export function formatDuration(milliseconds) {
  if (!Number.isSafeInteger(milliseconds)) throw new RangeError(`not a whole number of milliseconds: ${milliseconds}`);
  const sign = milliseconds < 0 ? '-' : '';
  const total = Math.abs(milliseconds);
  if (total === 0) return '0s';
  if (total < MILLISECONDS.s) return `${sign}${total}ms`;
  const hours = Math.floor(total / MILLISECONDS.h);
  const minutes = Math.floor((total % MILLISECONDS.h) / MILLISECONDS.m);
  const seconds = (total % MILLISECONDS.m) / MILLISECONDS.s;
  if (hours > 0) return `${sign}${hours}h${minutes}m${seconds}s`;
  return minutes > 0 ? `${sign}${minutes}m${seconds}s` : `${sign}${seconds}s`;
}
