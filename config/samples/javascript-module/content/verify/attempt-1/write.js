import assert from 'node:assert/strict';
import test from 'node:test';
import { formatDuration, parseDuration } from '../src/durations.js';

function reads(text, expected) {
  const found = parseDuration(text);
  assert.ok(found === expected, `'${text}' is ${expected} milliseconds, but is read as ${found}`);
}

function refuses(text) {
  let found;
  try {
    found = parseDuration(text);
  } catch (error) {
    assert.ok(error instanceof SyntaxError, `'${text}' is refused with a ${error.name}`);
    assert.ok(error.message.includes(JSON.stringify(text)), `the error does not quote '${text}'`);
    return;
  }
  assert.fail(`'${text}' is no duration, but is read as ${found}`);
}

function prints(milliseconds, expected) {
  const found = formatDuration(milliseconds);
  assert.ok(found === expected, `${milliseconds} is printed as ${found}, not as ${expected}`);
}

test('AC-1 units add up', () => {
  reads('250ms', 250);
  reads('2s', 2_000);
  reads('1h30m', 5_400_000);
  reads('1h2m3s4ms', 3_723_004);
});

test('AC-2 numbers have fractions', () => {
  reads('1.5h', 5_400_000);
  reads('1.1h', 3_960_000);
  reads('0.25s', 250);
});

test('AC-3 a sign holds for the whole duration', () => {
  reads('+5s', 5_000);
  reads('-5s', -5_000);
  reads('-1h30m', -5_400_000);
});

test('AC-4 only zero needs no unit', () => {
  reads('0', 0);
  reads('0s', 0);
  refuses('90');
});

for (const text of ['', 'h', '1d', '1m30', '1h 30m', ' 1h', '1h-30m', '.s', 'one hour']) {
  test(`AC-5 '${text}' is refused`, () => refuses(text));
}

test('AC-6 durations are printed as Go prints them', () => {
  prints(5_400_000, '1h30m0s');
  prints(90_000, '1m30s');
  prints(-1_500, '-1.5s');
  prints(250, '250ms');
  prints(0, '0s');
  assert.throws(() => formatDuration(0.5), RangeError, '0.5 milliseconds are printed');
});

test('AC-7 what is printed is read back', () => {
  for (const milliseconds of [0, 1, 999, 1_000, 59_999, 60_000, 3_599_999, 3_723_004, -3_723_004, 86_400_000]) {
    const found = parseDuration(formatDuration(milliseconds));
    assert.ok(found === milliseconds, `${milliseconds} is read back as ${found}`);
  }
});
