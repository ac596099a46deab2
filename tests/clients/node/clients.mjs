// Stripe's SDK and generic HTTP clients for Node.js against the service in ../server.
//
// usage: node clients.mjs SERVICE CONTROL      the two ports that the server prints
//
// Each row says what a user of the client sees, how often the handler executed, and how many requests were on the wire.

import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";
import axios from "axios";
import axiosRetry from "axios-retry";
import got from "got";
import ky, { HTTPError } from "ky";
import Stripe from "stripe";

const [SERVICE, CONTROL] = process.argv.slice(2, 4);
const RETRIES = 3;
const require = createRequire(import.meta.url);
let failed = 0;

// The version in the lock file: not every package lets its package.json be read.
const version = (name) => require("./package-lock.json").packages[`node_modules/${name}`].version;

/** Starts a case with a new engine and new counts. */
async function begin(profile, name) {
  const answer = await fetch(`http://127.0.0.1:${CONTROL}/control/${profile}/${name}`, { method: "POST" });
  if (!answer.ok) throw new Error(`no case ${profile} ${name}`);
}

/** How many requests came, and how many executions had their effect. */
async function counts() {
  const answer = await fetch(`http://127.0.0.1:${CONTROL}/counts`);
  return (await answer.text()).split(" ").map(Number);
}

/** What the user of a client sees: a value, or the class of an exception, its status and the type in its body. */
async function seen(call) {
  try {
    return await call();
  } catch (error) {
    return [error.constructor.name, error.statusCode, error.rawType].filter(Boolean).join(" ");
  }
}

/** Runs a row; `sent` is the number of requests, or the least and the most. */
async function row(client, profile, name, what, call, expected, executions, sent) {
  await begin(profile, name);
  const result = await seen(call);
  const [onTheWire, executed] = await counts();
  const [least, most] = Array.isArray(sent) ? sent : [sent, sent];
  const passed = result === expected && executed === executions && least <= onTheWire && onTheWire <= most;
  if (!passed) failed += 1;
  const line = `${client} | ${profile} | ${what} | ${result} | ${executed} executed, ${onTheWire} sent`;
  const wanted = passed ? "" : ` | expected ${expected}, ${executions} and ${sent}`;
  console.log(`${passed ? "ok    " : "FAILED"} ${line}${wanted}`);
}

// Stripe's SDK

const NAME = `stripe-node ${version("stripe")}`;
const PAYMENT = { amount: 100, currency: "eur", metadata: { order: "7" } };

function sdk({ retries = RETRIES, timeout = 10_000, secret = "sk_test_1" } = {}) {
  return new Stripe(secret, {
    host: "127.0.0.1",
    port: SERVICE,
    protocol: "http",
    maxNetworkRetries: retries,
    timeout,
    telemetry: false,
  });
}

async function pay(client, key, amount = 100, options = {}) {
  const payment = await client.paymentIntents.create({ ...PAYMENT, amount }, { idempotencyKey: key, ...options });
  return `${payment.id} of ${payment.amount}`;
}

async function stripeRows() {
  const check = (...columns) => row(NAME, "stripe", ...columns);
  const once = () => pay(sdk(), "k");
  const impatiently = () => pay(sdk({ timeout: 1000 }), "k");

  await check("plain", "a payment", once, "pi_1 of 100", 1, 1);
  await check("cut", "a lost answer", once, "pi_1 of 100", 1, 2);
  await check("slow", "a handler slower than the client", impatiently, "pi_1 of 100", 1, [2, 4]);
  await check("slow", "concurrent duplicates", async () => (await Promise.all([once(), once()])).join(" and "), "pi_1 of 100 and pi_1 of 100", 1, 2);
  await check("plain", "another amount under the same key", async () => {
    await once();
    return pay(sdk(), "k", 9999);
  }, "StripeIdempotencyError 400 idempotency_error", 1, 2);
  await check("plain", "the same parameters in another order", async () => {
    const results = [];
    for (const parameters of [PAYMENT, Object.fromEntries(Object.entries(PAYMENT).reverse())]) {
      const payment = await sdk().paymentIntents.create(parameters, { idempotencyKey: "k" });
      results.push(`${payment.id} of ${payment.amount}`);
    }
    return results.join(" and ");
  }, "pi_1 of 100 and pi_1 of 100", 1, 2);
  await check("plain", "the same key for two accounts", async () => {
    const results = [];
    for (const stripeAccount of ["acct_1", "acct_2"]) results.push(await pay(sdk(), "k", 100, { stripeAccount }));
    return results.join(" and ");
  }, "pi_1 of 100 and pi_2 of 100", 2, 2);
  await check("plain", "the same key of another caller", async () => {
    await once();
    return pay(sdk({ secret: "sk_test_2" }), "k");
  }, "StripeIdempotencyError 400 idempotency_error", 1, 2);
  await check("500", "an error of the handler", once, "StripeAPIError 500 api_error", 1, 2);
  await check("503", "an error of the handler", once, "StripeAPIError 503 api_error", 1, 2);
  await check("panic", "a panic", once, "StripeAPIError 500 api_error", 1, 1);
  await check("unknown", "an unknown outcome", impatiently, "StripeAPIError 409 api_error", 1, 2);
  await check("not-stored", "a response that was not stored", once, "StripeAPIError 409 api_error", 1, 2);
  await check("plain", "a key of 256 bytes", () => pay(sdk(), "x".repeat(256)), "StripeInvalidRequestError 400 invalid_request_error", 0, 1);
  await check("small", "a body that is too large", () => sdk().paymentIntents.create({ ...PAYMENT, description: "x".repeat(100) }, { idempotencyKey: "k" }), "StripeAPIError 413 invalid_request_error", 0, 1);
  await check("conflict", "a conflict that lasts", async () => {
    // The next case ends it.
    seen(() => pay(sdk({ retries: 0, timeout: 60_000 }), "k"));
    while ((await counts())[1] === 0);
    return once();
  }, "StripeAPIError 409 idempotency_error", 1, 2 + RETRIES);
  await check("full", "a store without room", once, "StripeAPIError 503 api_error", 0, 1 + RETRIES);
  await check("plain", "keys that are no tokens", async () => {
    const payments = [];
    for (const key of ["order 123", "a,b", '{"order":7}', "back\\slash", '"quoted"', "quoted"]) {
      payments.push(await pay(sdk(), key), await pay(sdk(), key));
    }
    return payments.join(", ");
  }, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6].map((n) => `pi_${n} of 100`).join(", "), 6, 12);
}

// Generic clients, each set up to repeat what its users have it repeat: broken connections, time-outs and 503.

const temporary = [500, 502, 503, 504];

async function withAxios(url, headers) {
  const client = axios.create({ timeout: 1000, validateStatus: null });
  axiosRetry(client, {
    retries: RETRIES,
    shouldResetTimeout: true,
    retryDelay: () => 100,
    validateResponse: (answer) => !temporary.includes(answer.status),
    retryCondition: (error) => !error.response || temporary.includes(error.response.status),
  });
  try {
    const answer = await client.post(url, { amount: 100 }, { headers });
    return [answer.status, JSON.stringify(answer.data)];
  } catch (error) {
    if (!error.response) throw error;
    return [error.response.status, JSON.stringify(error.response.data)];
  }
}

async function withGot(url, headers) {
  const answer = await got.post(url, {
    json: { amount: 100 },
    headers,
    throwHttpErrors: false,
    timeout: { request: 1000 },
    retry: { limit: RETRIES, methods: ["POST"], calculateDelay: ({ computedValue }) => computedValue && 100 },
  });
  return [answer.statusCode, answer.body];
}

async function withKy(url, headers) {
  // With `throwHttpErrors: false` it would repeat no status.
  const answer = await ky.post(url, {
    json: { amount: 100 },
    headers,
    timeout: 10_000,
    // Its `timeout` is for all attempts together; this is the one for each.
    fetch: (request) => fetch(request, { signal: AbortSignal.timeout(1000) }),
    retry: { limit: RETRIES, methods: ["post"], retryOnTimeout: true, backoffLimit: 100, maxRetryAfter: 0 },
  }).catch((error) => {
    if (!(error instanceof HTTPError)) throw error;
    return error.response;
  });
  return [answer.status, await answer.text()];
}

async function genericRows() {
  const clients = [
    [`axios ${version("axios")} + axios-retry ${version("axios-retry")}`, withAxios],
    [`got ${version("got")}`, withGot],
    [`ky ${version("ky")}`, withKy],
  ];
  for (const [client, post] of clients) {
    const send = async () => {
      const [status, body] = await post(`http://127.0.0.1:${SERVICE}/v1/payments`, { "Idempotency-Key": `"${randomUUID()}"` });
      return `${status} ${body.includes("pi_1") ? "pi_1" : ""}`.trim();
    };
    await row(client, "default", "cut", "a lost answer", send, "200 pi_1", 1, 2);
    for (const profile of ["default", "ietf", "stripe"]) {
      await row(client, profile, "slow", "a handler slower than the client", send, "200 pi_1", 1, [2, 1 + RETRIES]);
      await row(client, profile, "503", "an error after the effect", send, "503", 1, 1 + RETRIES);
    }
    await row(client, "default", "full", "a store without room", send, "503", 0, 1 + RETRIES);
  }
}

await stripeRows();
await genericRows();
process.exit(failed ? 1 : 0);
