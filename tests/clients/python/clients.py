"""Stripe's SDK, generic HTTP clients and gRPC for Python against the service in ../server.

usage: clients.py SERVICE CONTROL GRPC      the ports that the server prints

Each row says what a user of the client sees, how often the handler executed, and how many requests were on the wire.
"""

import json
import sys
import threading
import urllib.request
import uuid

import grpc
import httpx
import requests
import stripe
import tenacity
import urllib3
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from requests.adapters import HTTPAdapter

SERVICE, CONTROL = (f"http://127.0.0.1:{port}" for port in sys.argv[1:3])
GRPC = f"127.0.0.1:{sys.argv[3]}"
RETRIES = 3
failed = 0


def begin(profile, case):
    """Starts a case with a new engine and new counts."""
    request = urllib.request.Request(f"{CONTROL}/control/{profile}/{case}", method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def counts():
    """How many requests came, and how many executions had their effect."""
    with urllib.request.urlopen(f"{CONTROL}/counts", timeout=10) as answer:
        return [int(count) for count in answer.read().split()]


def seen(call):
    """What the user of a client sees: a value, or the class of an exception, its status and the type in its body."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - its class is what is compared
        body = getattr(error, "error", None)
        parts = [type(error).__name__, getattr(error, "http_status", None), body and body.type]
        return " ".join(str(part) for part in parts if part)


def row(client, profile, case, call, expected, executions, sent):
    """Runs a row; `sent` is the number of requests, or the most and the least."""
    global failed
    begin(profile, case)
    result = seen(call)
    on_the_wire, executed = counts()
    least, most = sent if isinstance(sent, tuple) else (sent, sent)
    passed = result == expected and executed == executions and least <= on_the_wire <= most
    failed += not passed
    line = f"{client} | {profile} | {call.__name__} | {result} | {executed} executed, {on_the_wire} sent"
    print(f"{'ok    ' if passed else 'FAILED'} {line}" + ("" if passed else f" | expected {expected}, {executions} and {sent}"), flush=True)


# Stripe's SDK

NAME = f"stripe-python {stripe.VERSION}"
PAYMENT = {"amount": 100, "currency": "eur", "metadata": {"order": "7"}}


def sdk(retries=RETRIES, timeout=10, secret="sk_test_1"):
    return stripe.StripeClient(
        secret,
        base_addresses={"api": SERVICE},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def pay(client, key, amount=100, **options):
    payment = client.v1.payment_intents.create({**PAYMENT, "amount": amount}, {"idempotency_key": key, **options})
    return f"{payment.id} of {payment.amount}"


def stripe_rows():
    def check(case, call, expected, executions, sent):
        row(NAME, "stripe", case, call, expected, executions, sent)

    def a_payment():
        return pay(sdk(), "k")

    def a_lost_answer():
        return pay(sdk(), "k")

    def a_handler_slower_than_the_client():
        return pay(sdk(timeout=1), "k")

    def concurrent_duplicates():
        results = []
        threads = [threading.Thread(target=lambda: results.append(pay(sdk(), "k"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return " and ".join(results)

    def another_amount_under_the_same_key():
        pay(sdk(), "k")
        return pay(sdk(), "k", amount=9999)

    def an_error_of_the_handler():
        return pay(sdk(), "k")

    def a_panic():
        return pay(sdk(), "k")

    def an_unknown_outcome():
        return pay(sdk(timeout=1), "k")

    def a_response_that_was_not_stored():
        return pay(sdk(), "k")

    def a_key_of_256_bytes():
        return pay(sdk(), "x" * 256)

    def a_body_that_is_too_large():
        client = sdk()
        options = {"idempotency_key": "k"}
        return client.v1.payment_intents.create({"amount": 1, "description": "x" * 100}, options)

    def a_conflict_that_lasts():
        begun = threading.Thread(target=lambda: seen(lambda: pay(sdk(retries=0, timeout=60), "k")), daemon=True)
        begun.start()
        while counts()[1] == 0:
            pass
        return pay(sdk(), "k")

    def a_store_without_room():
        return pay(sdk(), "k")

    def keys_that_are_no_tokens():
        keys = ["order 123", "a,b", '{"order":7}', "back\\slash", '"quoted"', "quoted"]
        return ", ".join(pay(sdk(), key) for key in keys for _ in range(2))

    def the_same_parameters_in_another_order():
        results = []
        for parameters in [PAYMENT, dict(reversed(PAYMENT.items()))]:
            payment = sdk().v1.payment_intents.create(parameters, {"idempotency_key": "k"})
            results.append(f"{payment.id} of {payment.amount}")
        return " and ".join(results)

    def the_same_key_for_two_accounts():
        return " and ".join(pay(sdk(), "k", stripe_account=account) for account in ["acct_1", "acct_2"])

    def the_same_key_of_another_caller():
        pay(sdk(), "k")
        return pay(sdk(secret="sk_test_2"), "k")

    check("plain", a_payment, "pi_1 of 100", 1, 1)
    check("cut", a_lost_answer, "pi_1 of 100", 1, 2)
    check("slow", a_handler_slower_than_the_client, "pi_1 of 100", 1, (2, 4))
    check("slow", concurrent_duplicates, "pi_1 of 100 and pi_1 of 100", 1, 2)
    check("plain", another_amount_under_the_same_key, "IdempotencyError 400 idempotency_error", 1, 2)
    check("plain", the_same_parameters_in_another_order, "pi_1 of 100 and pi_1 of 100", 1, 2)
    check("plain", the_same_key_for_two_accounts, "pi_1 of 100 and pi_2 of 100", 2, 2)
    check("plain", the_same_key_of_another_caller, "IdempotencyError 400 idempotency_error", 1, 2)
    check("500", an_error_of_the_handler, "APIError 500 api_error", 1, 2)
    check("503", an_error_of_the_handler, "APIError 503 api_error", 1, 2)
    check("panic", a_panic, "APIError 500 api_error", 1, 1)
    check("unknown", an_unknown_outcome, "APIError 409 api_error", 1, 2)
    check("not-stored", a_response_that_was_not_stored, "APIError 409 api_error", 1, 2)
    check("plain", a_key_of_256_bytes, "InvalidRequestError 400 invalid_request_error", 0, 1)
    check("small", a_body_that_is_too_large, "APIError 413 invalid_request_error", 0, 1)
    check("conflict", a_conflict_that_lasts, "APIError 409 idempotency_error", 1, 2 + RETRIES)
    check("full", a_store_without_room, "APIError 503 api_error", 0, 1 + RETRIES)
    twice = ", ".join(f"pi_{n} of 100" for n in range(1, 7) for _ in range(2))
    check("plain", keys_that_are_no_tokens, twice, 6, 12)


# Generic clients, each set up to repeat what its users have it repeat: broken connections, time-outs and 503.


def with_requests(url, key):
    session = requests.Session()
    retry = urllib3.Retry(total=RETRIES, backoff_factor=0.1, allowed_methods=None, status_forcelist=[500, 502, 503, 504], raise_on_status=False)
    session.mount("http://", HTTPAdapter(max_retries=retry))
    answer = session.post(url, json={"amount": 100}, headers={"Idempotency-Key": key}, timeout=1)
    return answer.status_code, answer.text


def with_httpx(url, key):
    def is_temporary(answer):
        return answer.status_code in (500, 502, 503, 504)

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(1 + RETRIES),
        wait=tenacity.wait_exponential(0.1),
        retry=tenacity.retry_if_exception_type(httpx.TransportError) | tenacity.retry_if_result(is_temporary),
        retry_error_callback=lambda state: state.outcome.result(),
    )
    def post():
        return httpx.post(url, json={"amount": 100}, headers={"Idempotency-Key": key}, timeout=1)

    answer = post()
    return answer.status_code, answer.text


def generic_rows():
    for client, post in [
        (f"requests {requests.__version__} + urllib3 {urllib3.__version__}", with_requests),
        (f"httpx {httpx.__version__} + tenacity", with_httpx),
    ]:

        def send():
            status, body = post(f"{SERVICE}/v1/payments", f'"{uuid.uuid4()}"')
            return f"{status} {'pi_1' if 'pi_1' in body else ''}".strip()

        def a_lost_answer():
            return send()

        def a_handler_slower_than_the_client():
            return send()

        def an_error_after_the_effect():
            return send()

        def a_store_without_room():
            return send()

        row(client, "default", "cut", a_lost_answer, "200 pi_1", 1, 2)
        for profile in ["default", "ietf", "stripe"]:
            row(client, profile, "slow", a_handler_slower_than_the_client, "200 pi_1", 1, (2, 1 + RETRIES))
            row(client, profile, "503", an_error_after_the_effect, "503", 1, 1 + RETRIES)
        row(client, "default", "full", a_store_without_room, "503", 0, 1 + RETRIES)


# gRPC, with the retries that its service config has.


def grpc_rows():
    policy = {
        "maxAttempts": 1 + RETRIES,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}

    def charge(order="100", key="k"):
        # A channel of its own: one that was cut waits before it connects again.
        with grpc.insecure_channel(GRPC, options=[("grpc.service_config", json.dumps(config))]) as channel:
            method = channel.unary_unary("/pay.v1.Payments/Charge", request_serializer=as_field, response_deserializer=of_field)
            try:
                receipt, call = method.with_call(order, metadata=[("idempotency-key", key)], timeout=30)
            except grpc.RpcError as error:
                return " ".join([error.code().name, *details(error)])
            replayed = dict(call.initial_metadata()).get("idempotent-replay") == "true"
            return f"{receipt} again" if replayed else receipt

    def as_field(text):
        return bytes([0x0A, len(text)]) + text.encode()

    def of_field(message):
        assert message[0] == 0x0A and message[1] == len(message) - 2
        return message[2:].decode()

    def details(error):
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                yield f"{info.reason} {info.metadata['action']}"
            if detail.Unpack(retry):
                yield f"{retry.retry_delay.seconds}s"

    def a_call_and_its_repetition():
        return f"{charge()}, {charge()}"

    def a_lost_answer():
        return charge()

    def an_error_after_the_effect():
        return charge()

    def another_order_under_the_same_key():
        charge()
        return charge("9999")

    def a_panic():
        return f"{charge()}, {charge()}"

    def a_conflict():
        begun = threading.Thread(target=charge, daemon=True)
        begun.start()
        while counts()[1] == 0:
            pass
        return charge()

    def check(case, call, expected, executions, sent):
        row(f"grpcio {grpc.__version__}", "default", case, call, expected, executions, sent)

    check("plain", a_call_and_its_repetition, "receipt 1 of 100, receipt 1 of 100 again", 1, 2)
    check("cut", a_lost_answer, "receipt 1 of 100 again", 1, 2)
    check("503", an_error_after_the_effect, "UNAVAILABLE", 1, 1 + RETRIES)
    check("plain", another_order_under_the_same_key, "FAILED_PRECONDITION IDEMPOTENCY_MISMATCH fix_request", 1, 2)
    panicked = "INTERNAL IDEMPOTENCY_HANDLER_PANICKED none"
    check("panic", a_panic, f"{panicked}, {panicked}", 1, 2)
    check("conflict", a_conflict, "ABORTED IDEMPOTENCY_CONFLICT retry_same_key 1s", 1, 2)


stripe_rows()
generic_rows()
grpc_rows()
sys.exit(1 if failed else 0)
