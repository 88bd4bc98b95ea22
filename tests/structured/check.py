#!/usr/bin/env python3
"""Sends every schema to a running server, 16 at a time, and checks each answer with `jsonschema`, which knows nothing of the
server's own reading of schemas. Prints one line of counts; fails with what went wrong."""

import collections
import concurrent.futures
import json
import os
import re
import sys
import urllib.error
import urllib.request

import jsonschema

import schemas

URL = os.environ["SCONCE_URL"] + "/v1/chat/completions"
WORDS = "Answer with JSON only. Invent something short that fits."

# Dates are held to their form and not to the calendar: 29 February is let through in any year. A fraction of a second may
# have more digits than Python reads.
FORMATS = jsonschema.FormatChecker(["uuid", "ipv4", "email"])
DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"


@FORMATS.checks("date")
def is_date(value):
    return not isinstance(value, str) or re.fullmatch(DATE, value) is not None


@FORMATS.checks("time")
def is_clock(value):
    return not isinstance(value, str) or re.match("[0-2][0-9]:[0-5][0-9]:[0-6][0-9]", value) is not None


@FORMATS.checks("date-time")
def is_time(value):
    return not isinstance(value, str) or re.match(DATE + "[Tt][0-2][0-9]:", value) is not None


def ask(schema, seed=0):
    """Status and body."""
    body = {
        "model": os.environ["SCONCE_CHAT_MODEL"],
        "messages": [{"role": "user", "content": WORDS}],
        "max_tokens": 96,
        "temperature": 0.8,
        "seed": seed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
    }
    request = urllib.request.Request(
        URL,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["SCONCE_KEY"]},
    )
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def accepted(case):
    """How the answer ended; raises what is wrong with it."""
    number, (kind, schema) = case
    status, body = ask(schema, number)
    if status != 200:
        raise AssertionError(f"{kind}: {status} {body['error']['message']}: {json.dumps(schema)}")
    choice = body["choices"][0]
    if choice["finish_reason"] == "stop":
        text = choice["message"]["content"]
        try:
            jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(text))
        except (ValueError, jsonschema.ValidationError) as error:
            raise AssertionError(f"{kind}: {text!r} for {json.dumps(schema)}: {error}") from error
    return kind, choice["finish_reason"]


def refused(case):
    schema, word = case
    status, body = ask(schema)
    if status != 400:
        raise AssertionError(f"{status} for {json.dumps(schema)}")
    if word not in body["error"]["message"]:
        raise AssertionError(f"{word} is not named: {body['error']['message']}")


def tried(check, cases):
    """What came of each case, and what was wrong."""
    results, faults = [], []
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(check, case) for case in cases]:
            try:
                results.append(future.result())
            except AssertionError as error:
                faults.append(str(error))
    return results, faults


def main():
    answers, faults = tried(accepted, enumerate(schemas.ACCEPTED))
    refusals, more = tried(refused, schemas.REFUSED)
    ends = collections.Counter(end for _, end in answers)
    print(f"{len(schemas.ACCEPTED)} schemas: {ends['stop']} answers ended and are valid, {ends['length']} were cut off; "
          f"{len(refusals)} of {len(schemas.REFUSED)} refused by name")
    print(dict(collections.Counter(kind for kind, end in answers if end == "length")))
    faults += more
    if ends["stop"] * 10 < len(schemas.ACCEPTED) * 9:
        faults.append("too few answers came to their end")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
