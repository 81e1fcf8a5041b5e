/**
 * How long a job may still take, from the pace of its progress. These are pure functions: samples
 * and the time of now come in, and there is no clock and no page in here.
 *
 * A sample is [seconds, progress]: when the progress (0 to 100) was first seen. All times are in
 * seconds of one clock. An estimate is seconds, or null where none is worth showing.
 */

const ENOUGH = 4; // samples, before there is a pace to speak of
const LONG_ENOUGH = 8; // seconds from the first sample to the last
const FAR_ENOUGH = 5; // per cent done, because most jobs begin with preparations
const WORTH = 10; // seconds: what ends sooner needs no estimate
const LONGEST = 48 * 3600; // seconds: what takes longer than this will not keep its pace
const MOST = 60; // samples to keep
const NEWEST = 10; // the newest samples, which are all kept
const UNEVEN = 4; // a pace that is this many times faster or slower than before says nothing
const WORSE = 1.5; // more is shown only when it is this many times what was shown

/**
 * Adds a sample of the progress. One that equals the last is not added. After a step back, or
 * after a stall, the new sample stands alone, because the old pace says nothing any more.
 */
export function withSample(samples, seconds, progress) {
  const last = samples.at(-1);
  if (last && progress === last[1]) return samples;
  if (last && (progress < last[1] || stalls(samples, seconds))) return [[seconds, progress]];
  const all = [...samples, [seconds, progress]];
  // Of many samples every other one will do, but for the newest.
  return all.length <= MOST ? all : all.filter((_, i) => i % 2 === 0 || i > MOST - NEWEST);
}

/** About how many seconds are left, or null where nobody should rely on it. */
export function secondsLeft(samples, now) {
  if (samples.length < ENOUGH) return null;
  const [[begun], [seen, progress]] = [samples[0], samples.at(-1)];
  const span = seen - begun;
  if (progress < FAR_ENOUGH || span < LONG_ENOUGH || progress >= 100) return null;
  if (stalls(samples, now)) return null;
  const half = samples.findLastIndex(([time]) => time <= begun + span / 2);
  const [before, after] = [samples.slice(0, half + 1), samples.slice(half)].map(average);
  if (before > UNEVEN * after || after > UNEVEN * before) return null;
  const left = (100 - progress) / pace(samples, span / 2) - (now - seen);
  return left >= WORTH && left <= LONGEST ? left : null;
}

/**
 * The seconds left to show next. `shown` is what the page shows, and `fresh` is the new estimate.
 * Null stands for "nothing is shown".
 */
export function steady(shown, fresh) {
  if (fresh === null) return null;
  const rounded = round(fresh);
  if (shown === null || rounded < shown) return rounded;
  return fresh > WORSE * shown ? rounded : shown;
}

/** Seconds as a round number of a unit: [40, "second"], [3, "minute"], [1.5, "hour"]. */
export function rough(seconds) {
  if (seconds < 60) return [seconds, "second"];
  return seconds < 3600 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
}

/** Whether nothing has been heard for much longer than between the newest samples. */
function stalls(samples, now) {
  const times = samples.slice(-NEWEST).map(([time]) => time);
  const gaps = times.slice(1).map((time, i) => time - times[i]);
  return gaps.length > 1 && now - times.at(-1) > 2 * Math.max(...gaps) + 5;
}

function round(seconds) {
  const steps = [
    [55, 10],
    [570, 60],
    [3450, 300],
    [5 * 3600, 1800],
  ];
  const step = steps.find(([below]) => seconds < below)?.[1] ?? 3600;
  return Math.max(WORTH, Math.round(seconds / step) * step);
}

/** Per cent a second from the first sample to the last; NaN where they are too few to tell. */
function average(samples) {
  const [[begun, from], [seen, to]] = [samples[0], samples.at(-1)];
  return samples.length < 2 ? NaN : (to - from) / (seen - begun);
}

/** Per cent a second, by least squares. A sample that is `age` seconds old counts half. */
function pace(samples, age) {
  const latest = samples.at(-1)[0];
  const weighed = samples.map(([time, progress]) => [
    0.5 ** ((latest - time) / age),
    time - latest,
    progress,
  ]);
  const sum = (value) => weighed.reduce((total, each) => total + each[0] * value(each), 0);
  const all = sum(() => 1);
  const time = sum(([, x]) => x) / all;
  const progress = sum(([, , y]) => y) / all;
  const rise = sum(([, x, y]) => (x - time) * (y - progress));
  return rise / sum(([, x]) => (x - time) ** 2);
}
