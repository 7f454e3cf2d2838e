// @ts-check
/**
 * Quantities in words.
 */

/**
 * @param {number} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toPrecision(2)} s`;
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/**
 * @param {number} count
 * @returns {string}
 */
export function bytes(count) {
  const mebibytes = count / 2 ** 20;
  if (mebibytes < 10) return `${mebibytes.toPrecision(2)} MiB`;
  if (mebibytes < 1000) return `${mebibytes.toFixed(0)} MiB`;
  return `${(mebibytes / 1024).toPrecision(3)} GiB`;
}
