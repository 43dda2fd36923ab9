"use strict";
// Sizes and times as people read them, as walsender/status/words.py has them.
const NONE = "–";
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
const AGES = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function digits(value) {
  return value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
}

function size(count) {
  if (count === null || count === undefined) return NONE;
  let value = count, power = 0;
  while (value >= 1000 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power ? digits(value) : Math.round(count)} ${UNITS[power]}`;
}

function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1) return `${digits(value * 1000)} ms`;
  return value < 100 ? `${digits(value)} s` : age(value);
}

function age(value) {
  const rest = Math.max(0, Math.floor(value));
  const place = AGES.findIndex(([unit]) => rest >= unit);
  if (place < 0 || place === AGES.length - 1) return `${rest} s`;
  const [unit, name] = AGES[place], [smaller, itsName] = AGES[place + 1];
  return `${Math.floor(rest / unit)} ${name} ${Math.floor((rest % unit) / smaller)} ${itsName}`;
}

function moment(value) {
  return `${new Date(value * 1000).toISOString().slice(11, 19)} UTC`;
}

/** An LSN as a number; exact up to 8 PB of WAL, and here only distances are shown that are approximate anyway. */
function position(lsn) {
  const [high, low] = lsn.split("/");
  return parseInt(high, 16) * 2 ** 32 + parseInt(low, 16);
}
