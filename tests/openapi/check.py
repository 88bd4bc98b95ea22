"""What programs in another language make of the API's description.

    check.py validate FILE                       is it a valid OpenAPI 3.0.3 document?
    check.py fuzz URL TOKEN [OTHER_TOKEN]        does the server keep to it, whatever it is sent?
    check.py client URL USER PASSWORD MODEL      does a client made from it sign in, make a key and chat?

Ends with 0 if so; else says why not. `fuzz` changes and deletes what it finds: it is for a server that is thrown away
afterwards, whose models cannot be fetched from anywhere (offline, no hub), and whose limits of requests are high.
"""

import argparse
import functools
import importlib
import inspect
import json
import os
import random
import subprocess
import sys
import tempfile
import typing
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

from jsonschema import Draft202012Validator

DOCUMENT = "/api/v1/openapi.json"
NEWER_DOCUMENT = "/api/v1/openapi-3.1.json"
ME = "/api/v1/me"
API_KEY = "x-api-key"
CHATS = "/v1/chat/completions"
MODELS = "/v1/models"

# Whoever changes something here acts on itself, and is nobody once one of the endings was reached.
ONESELF = (ME, "/api/v1/auth/logout")
ENDINGS = ("POST /api/v1/auth/logout", f"DELETE {ME}")

# Answers that say nothing about an operation: it was not reached.
NOT_REACHED = {401, 408, 421, 429, 503}

# What is hardly ever right by chance: a password, a token of somebody, a user who is in the team, one who may be signed out and
# is still there, a socket.
NEVER_RIGHT = {
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    f"POST {ME}/password",
    "DELETE /api/v1/admin/teams/{teamId}/members/{userId}",
    "DELETE /api/v1/admin/users/{userId}/sessions",
    "DELETE /api/v1/admin/users/{userId}/sessions/{sessionId}",
    f"DELETE {ME}/sessions/{{sessionId}}",
    "GET /api/v1/chat/stream",
    # They need a file of requests, a work in the background, or a model of another kind; their own tests have these.
    "POST /v1/batches",
    "GET /v1/batches/{batch_id}",
    "POST /v1/batches/{batch_id}/cancel",
    "POST /v1/responses/{responseId}/cancel",
    "POST /api/embed",
}

# What is refused without another parameter, which is no matter of chance either.
NEEDS = {
    "stream_options": ("stream", True),
    "top_logprobs": ("logprobs", True),
    "max_completion_tokens": ("max_tokens", None),
}

# Which kind of model is asked where; elsewhere one that generates text.
KINDS = {"embeddings": "embedding", "rerank": "cross_encoder", "score": "cross_encoder"}

SEED = 20250101
EXAMPLES = 15
MADE = 8
STEPS = 4
REQUEST_TIMEOUT = 60
STREAM_EVENTS = 100
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def fetch(url, token=None, body=None):
    """The JSON at a URL, or what is answered to a body; raises unless it is 2xx."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        return json.load(answer)


def operations(document):
    """(path, METHOD, operation) of each."""
    for path, item in document["paths"].items():
        for method in ("get", "put", "post", "delete", "options", "head", "patch", "trace"):
            if method in item:
                yield path, method.upper(), item[method]


# ---------------------------------------------------------------------------------------------------------- validate


def validate(file):
    from openapi_spec_validator import OpenAPIV30SpecValidator

    document = json.loads(Path(file).read_text(encoding="utf-8"))
    if document.get("openapi") != "3.0.3":
        return [f"the document says it is {document.get('openapi')}, not 3.0.3"]
    problems = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in
                OpenAPIV30SpecValidator(document).iter_errors()]
    if not problems:
        print(f"valid: OpenAPI 3.0.3, {len(list(operations(document)))} operations")
    return problems


# -------------------------------------------------------------------------------------------------------------- fuzz


def own_ids(url, token):
    """What the caller must not lose: every id in what the server tells it of itself."""
    found = set()

    def collect(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                if (name == "id" or name.endswith("_id")) and isinstance(inner, (str, int)):
                    found.add(str(inner))
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    paths = [path for path, method, _ in operations(fetch(url + DOCUMENT)) if method == "GET"]
    for path in paths:
        if (path == ME or path.startswith(ME + "/")) and "{" not in path:
            collect(fetch(url + path, token))
    return found


class Known:
    """What the server has told of: with made-up ids alone nothing would be found to show, change or delete."""

    def __init__(self, url, token, protected):
        self.url, self.token, self.protected = url, token, protected
        self.chance = random.Random(SEED)
        self.ids = defaultdict(list)
        self.models = defaultdict(list)

    def learn(self, path, answer):
        """Keeps the ids in the answer of a collection: of what was made, or of what is listed."""
        data = answer.get("data") if isinstance(answer, dict) else None
        for item in [answer, data, *(data.get("items") or [] if isinstance(data, dict) else data or [])]:
            found = item.get("id") if isinstance(item, dict) and not is_passing(item) else None
            if isinstance(found, str) and found not in self.ids[noun(path)]:
                self.ids[noun(path)].append(found)

    def learn_models(self):
        """Which models answer at all."""
        for model in fetch(self.url + MODELS, self.token)["data"]:
            self.models[model["kind"]].append(model["id"])
            self.ids["model"].append(model["id"])
            self.protected.add(model["id"])

    def make(self, paths):
        """Makes a few of everything, so that deleting does not end before the rest is tried."""
        for number in range(MADE):
            name = f"made-{os.getpid()}-{number}"
            user = self.ids["user"][-1] if self.ids["user"] else None
            for path, body in (
                ("/api/v1/admin/users", {"username": name}),
                ("/api/v1/admin/teams", {"name": name}),
                ("/api/v1/admin/models", {"id": name}),
                ("/api/v1/admin/keys", {"name": name, "user_id": user}),
            ):
                if "post" in paths.get(path, {}) and None not in body.values():
                    self.learn(path, fetch(self.url + path, self.token, body))
            if "get" in paths.get(CHATS, {}) and self.models["causal"]:
                fetch(self.url + CHATS, self.token, {"model": self.models["causal"][0], "store": True, "max_tokens": 1,
                                                     "messages": [{"role": "user", "content": name}]})
        if "get" in paths.get(CHATS, {}):
            self.learn(CHATS, fetch(self.url + CHATS, self.token))

    def forget(self, case):
        """What was deleted is there no more. (Who is taken out of a team still is.)"""
        if len(case.path_parameters) > 1:
            return
        for name, value in case.path_parameters.items():
            ids = self.ids_for(case.operation.path, name)
            if value in ids:
                ids.remove(value)

    def ids_for(self, path, name):
        """The ids that a parameter of a path may be."""
        return self.ids[name.removesuffix("Id")] or self.ids[noun(path.split("{" + name)[0].rstrip("/"))]

    def one_of(self, ids, value):
        """Mostly something that is there, instead of `value`."""
        return self.chance.choice(ids) if ids and self.chance.random() < 0.8 else value

    def use(self, case):
        """Names in a request what is there."""
        for name, value in (case.path_parameters or {}).items():
            ids = self.ids_for(case.operation.path, name)
            # The last ones are left for what others do with them: these are not deleted, what belongs to them may be.
            is_deleted = case.method.upper() == "DELETE" and case.operation.path.endswith("{" + name + "}")
            if is_deleted and len(ids) < MADE / 2:
                ids = []
            case.path_parameters[name] = self.one_of(ids, value)
        if not isinstance(case.body, dict):
            return
        for name, value in case.body.items():
            if name == "model":
                kind = next((kind for word, kind in KINDS.items() if word in case.operation.path), "causal")
                case.body[name] = self.one_of(self.models[kind], value)
            elif name.endswith("_id") and isinstance(value, str):
                case.body[name] = self.one_of(self.ids[name.removesuffix("_id").removeprefix("previous_")], value)
        for name, (needed, value) in NEEDS.items():
            if case.body.get(name) is not None:
                case.body[needed] = self.one_of([value], case.body.get(needed))


def is_passing(item):
    """Whether it is an answer that is given and not found again: what is stored is shown with its notes."""
    return item.get("object") in ("chat.completion", "text_completion") and "metadata" not in item


def noun(path):
    """What a collection is of: `/api/v1/admin/users` is of things that are called user."""
    return path.rsplit("/", 1)[-1].removesuffix("s")


def stream_conformance(_context, response, case):
    """Every event of a stream is as the schema says, or an error, or the word for its end; after these nothing comes."""
    if not is_stream(response):
        return
    # By the newer document: in the older one tools differ on whether a reference may be null.
    document = newer_document(case.operation.base_url.rstrip("/"))
    answer = document["paths"][case.operation.path][case.method.lower()]["responses"][str(response.status_code)]
    schema = answer["content"]["text/event-stream"]["schema"]
    validator = Draft202012Validator({"allOf": [schema], "components": document["components"]})
    events = [line[5:].strip() for line in response.content.decode().splitlines() if line.startswith("data:")]
    assert events, "a stream without an event"
    for event in events[:-1]:
        assert event != "[DONE]" and not is_error(event), "an event after the last"
    for event in events:
        if event != "[DONE]" and not is_error(event):
            wrong = next(validator.iter_errors(json.loads(event)), None)
            assert wrong is None, f"an event that is not as described: {wrong.message}: {event}"


@functools.cache
def newer_document(url):
    return fetch(url + NEWER_DOCUMENT)


def is_error(event):
    try:
        return set(json.loads(event)) == {"error"}
    except ValueError:
        raise AssertionError(f"an event of no known kind: {event}") from None
    except TypeError:
        return False


def as_json(response):
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def is_stream(response):
    return any(kind.startswith("text/event-stream") for kind in response.headers.get("content-type", []))


def run_fuzzer(url, token, names, folder):
    """Runs the fuzzer over the named operations; true if it found nothing."""
    from schemathesis.cli import schemathesis as command

    settings = Path(folder) / "schemathesis.toml"
    settings.write_text(
        f"""
seed = {SEED}
workers = 1 # Python below 3.12 cannot parse its own code in several threads, which the fuzzer does
continue-on-failure = true
request-timeout = {REQUEST_TIMEOUT}
max-stream-events = {STREAM_EVENTS}
headers = {{ Authorization = {json.dumps("Bearer " + token)} }}
[generation]
max-examples = {EXAMPLES}
database = "none"
no-shrink = true
[phases.stateful]
max-steps = {STEPS}
[cache]
enabled = false
""",
        encoding="utf-8",
    )
    chosen = [word for name in names for word in ("--include-name", name)]
    checks = ["--checks", ",".join(CHECKS + (stream_conformance.__name__,))]
    arguments = ["--config-file", str(settings), "run", url + DOCUMENT, "--no-color"] + checks + chosen
    try:
        code = command.main(arguments, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    return code in (0, None)


def is_change_of_oneself(name):
    method, path = name.split(" ", 1)
    return method != "GET" and any(path == one or path.startswith(one + "/") for one in ONESELF)


def fuzz(url, token, other=None):
    import schemathesis

    protected = set().union(*(own_ids(url, caller) for caller in (token, other) if caller))
    answers = defaultdict(Counter)

    known = Known(url, token, protected)
    document = fetch(url + DOCUMENT)
    if MODELS in document["paths"]:
        known.learn_models()
    known.make(document["paths"])

    @schemathesis.hook
    def before_call(context, case, arguments):
        """Keeps the caller alive: what it must not lose is not named in a request that changes something."""
        known.use(case)
        # A made-up key beside the caller's own is refused before anything else is looked at: seldom is enough.
        if case.headers and known.chance.random() < 0.9:
            case.headers.pop(API_KEY, None)
        if case.method.upper() != "GET":
            for name, value in (case.path_parameters or {}).items():
                if str(value) in protected:
                    case.path_parameters[name] = "kept-out-by-the-test"

    @schemathesis.hook
    def filter_failure(context, failure, case, response):
        """The fuzzer takes the word for the end, too, for an event that must be as the schema says."""
        return not (is_stream(response) and failure.title == "SSE event violates schema")

    schemathesis.check(stream_conformance)

    @schemathesis.hook
    def after_call(context, case, response):
        answers[f"{case.method.upper()} {case.operation.path}"][response.status_code] += 1
        if response.status_code < 300 and not is_stream(response) and "{" not in case.operation.path:
            known.learn(case.operation.path, as_json(response))
        if response.status_code < 300 and case.method.upper() == "DELETE" and case.operation.path.endswith("}"):
            known.forget(case)

    names = [f"{method} {path}" for path, method, _ in operations(document)]
    endings = [name for name in names if name in ENDINGS]
    oneself = [name for name in names if is_change_of_oneself(name) and name not in endings]
    rest = [name for name in names if name not in endings + oneself]

    problems = []
    runs = [(token, rest)] + ([(other, oneself), (other, endings)] if other else [])
    with tempfile.TemporaryDirectory() as folder:
        for caller, chosen in runs:
            if chosen and not run_fuzzer(url, caller, chosen, folder):
                problems.append("the fuzzer found what the document does not say; see above")
    for name in (name for _, chosen in runs for name in chosen):
        print(f"{name}: " + ", ".join(f"{count} x {status}" for status, count in sorted(answers[name].items())))
        if set(answers[name]) <= NOT_REACHED:
            problems.append(f"{name} was never reached")
        elif name not in NEVER_RIGHT and min(answers[name]) >= 300:
            problems.append(f"{name} never did what it is for")
    if not other and oneself + endings:
        print("left out, since they want the token of another: " + ", ".join(oneself + endings))
    try:
        fetch(url + ME, token)
    except OSError as error:
        problems.append(f"the caller lost itself on the way: GET {ME}: {error}")
    return problems


# ------------------------------------------------------------------------------------------------------------ client


def generate(document, folder):
    """Writes a client for the document into a package `made`, and lets Python find it."""
    (folder / "document.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "settings.yml").write_text("post_hooks: []\npackage_name_override: made\n", encoding="utf-8")
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--path", "document.json", "--meta", "none"]
        + ["--config", "settings.yml", "--output-path", "made", "--fail-on-warning"],
        cwd=folder, capture_output=True, text=True, check=False,
    )
    if made.returncode != 0:
        raise SystemExit(f"no client can be made:\n{made.stdout}{made.stderr}")
    sys.path.insert(0, str(folder))


class Made:
    """The client, its functions found by method and path."""

    def __init__(self, document, folder, url):
        self.folder, self.url = folder, url
        self.names = {(method, path): operation for path, method, operation in operations(document)}
        self.client = importlib.import_module("made.client")

    def call(self, method, path, body=None, token=None):
        """Asks as a user of the client would; the answer as the client understood it."""
        operation = self.names.get((method, path))
        if operation is None:
            raise SystemExit(f"the document does not know {method} {path}")
        module = self.module(operation["operationId"])
        if token:
            client = self.client.AuthenticatedClient(base_url=self.url, token=token, timeout=120)
        else:
            client = self.client.Client(base_url=self.url, timeout=120)
        arguments = {"client": client}
        if body is not None:
            kind = typing.get_type_hints(module.sync_detailed)["body"]
            arguments["body"] = next(iter(typing.get_args(kind)), kind).from_dict(body)
        answer = module.sync_detailed(**arguments)
        if answer.status_code >= 300 or answer.parsed is None:
            raise SystemExit(f"{method} {path}: {int(answer.status_code)} {answer.content[:2000]!r}")
        return answer.parsed.to_dict()

    def module(self, operation_id):
        """The module of an operation: named as Python would, below its tag."""
        wanted = "".join(character for character in operation_id.lower() if character.isalnum())
        for file in sorted((self.folder / "made/api").glob("*/*.py")):
            if file.stem.replace("_", "") == wanted:
                return importlib.import_module(f"made.api.{file.parent.name}.{file.stem}")
        raise SystemExit(f"the client has no function for {operation_id}")


def find(value, name):
    """The first thing of this name, however deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and value.get(name) is not None:
        return value[name]
    return next((found for found in (find(one, name) for one in inner) if found is not None), None)


def client(url, user, password, model):
    document = fetch(url + DOCUMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(document, folder)
        made = Made(document, folder, url)
        token = find(made.call("POST", "/api/v1/auth/login", {"username": user, "password": password}), "access_token")
        key = find(made.call("POST", f"{ME}/keys", {"name": "made by a client"}, token), "key")
        if not isinstance(key, str) or not key.startswith("sk-sconce-"):
            return ["the answer to a new key holds no key"]
        question = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
        for path in ("/api/v1/chat/completions", "/v1/chat/completions"):
            choices = find(made.call("POST", path, question, key), "choices")
            if not choices or not choices[0]["message"]["content"]:
                return [f"{path} answered nothing"]
            print(f"{path}: {choices[0]['message']['content']}")
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command in (validate, fuzz, client):
        subparser = commands.add_parser(command.__name__)
        subparser.set_defaults(command=command)
        for name, parameter in inspect.signature(command).parameters.items():
            optional = {} if parameter.default is inspect.Parameter.empty else {"nargs": "?"}
            subparser.add_argument(name, **optional)
    arguments = vars(parser.parse_args())
    problems = arguments.pop("command")(**arguments)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
