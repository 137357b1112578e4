// node run.mjs WASM: runs the calls of src/lib.rs.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const module = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
const { lone, nested, refused, reads_the_clock } = module.instance.exports;
assert.equal(lone(41), 42);
assert.equal(nested(21), 42);
assert.equal(refused(), 1);
assert.throws(reads_the_clock, WebAssembly.RuntimeError);
console.log("wasm32-unknown-unknown: calls run, and none reads the clock");
