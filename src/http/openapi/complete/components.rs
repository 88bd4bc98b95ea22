//! The parts that operations share: schemas and responses of errors, headers of every answer, the way to show who asks.

use serde_json::{Value, json};

use super::{HEAD_TOO_LARGE, OVERLOADED, Used, meaning};
use crate::error::Code;
use crate::http::extract::API_KEY as API_KEY_HEADER;
use crate::http::{AnthropicError, Surface};
use crate::language::Language;

/// The name of the usual way to authenticate.
pub(super) const BEARER: &str = "bearer";

/// The name of the way that Anthropic's clients have beside it.
pub(super) const API_KEY: &str = "apiKey";

/// The name of the shared response for a status.
pub(super) fn response_name(surface: Surface, status: u16) -> String {
    match surface {
        Surface::Envelope => format!("Error{status}"),
        Surface::OpenAi => format!("OpenAiError{status}"),
        Surface::Anthropic => format!("AnthropicError{status}"),
        Surface::Ollama => format!("OllamaError{status}"),
    }
}

/// The name of the schema of errors.
fn schema_name(surface: Surface) -> &'static str {
    match surface {
        Surface::Envelope => "ErrorEnvelope",
        Surface::OpenAi => "OpenAiErrorEnvelope",
        Surface::Anthropic => "AnthropicErrorEnvelope",
        Surface::Ollama => "OllamaErrorEnvelope",
    }
}

/// The headers of an answer with this status.
pub(super) fn headers(status: u16) -> Vec<(&'static str, Value)> {
    let reference = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    let mut headers = vec![("X-Request-Id", reference("RequestId"))];
    if status >= 400 {
        headers.push(("x-error-code", reference("ErrorCode")));
    }
    match status {
        401 => headers.push(("WWW-Authenticate", reference("Authenticate"))),
        429 | 503 | OVERLOADED => headers.push(("Retry-After", reference("RetryAfter"))),
        _ => {}
    }
    headers
}

/// The body of an error on this surface.
pub(super) fn error_body(surface: Surface) -> Value {
    let schema = format!("#/components/schemas/{}", schema_name(surface));
    json!({"application/json": {"schema": {"$ref": schema}}})
}

/// Puts all of them into the document; what bears the same name there already is kept.
pub(super) fn add(document: &mut Value, used: &Used) {
    let scheme = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "An access token from `POST /api/v1/auth/login`, or an API key."
    });
    put(document, "securitySchemes", BEARER, scheme);
    for (name, header) in all_headers() {
        put(document, "headers", name, header);
    }
    put(document, "schemas", schema_name(Surface::Envelope), envelope());
    put(document, "schemas", schema_name(Surface::OpenAi), openai());
    for (surface, schema) in [(Surface::Anthropic, anthropic()), (Surface::Ollama, ollama())] {
        if used.values().any(|(used, _)| *used == surface) {
            put(document, "schemas", schema_name(surface), schema);
        }
    }
    if used.values().any(|(used, _)| *used == Surface::Anthropic) {
        let description = "An API key, as Anthropic's clients show it.";
        let scheme =
            json!({"type": "apiKey", "in": "header", "name": API_KEY_HEADER, "description": description});
        put(document, "securitySchemes", API_KEY, scheme);
    }
    for (name, (surface, status)) in used {
        put(document, "responses", name, response(*surface, *status));
    }
}

fn put(document: &mut Value, section: &str, name: &str, value: Value) {
    let components = document.as_object_mut().map(|root| root.entry("components").or_insert(json!({})));
    let section =
        components.and_then(Value::as_object_mut).map(|all| all.entry(section).or_insert(json!({})));
    if let Some(section) = section.and_then(Value::as_object_mut) {
        section.entry(name).or_insert(value);
    }
}

fn response(surface: Surface, status: u16) -> Value {
    let mut description = format!("{}.", meaning(status));
    if status == HEAD_TOO_LARGE {
        return json!({"description": description});
    }
    let is_one = |code: &&Code| match surface {
        Surface::Anthropic => AnthropicError::status_of(**code) == status,
        _ => code.status() == status,
    };
    for code in Code::ALL.iter().filter(is_one) {
        description.push_str(&format!("\n- {}: {}", code.number(), code.text(Language::English)));
    }
    let headers: serde_json::Map<String, Value> =
        headers(status).into_iter().map(|(name, header)| (name.to_owned(), header)).collect();
    json!({"description": description, "headers": headers, "content": error_body(surface)})
}

fn all_headers() -> [(&'static str, Value); 4] {
    let header = |description: &str, required: bool, schema: Value| json!({"description": description, "required": required, "schema": schema});
    let text = || json!({"type": "string"});
    let number = |minimum: u32| json!({"type": "integer", "minimum": minimum});
    [
        (
            "RequestId",
            header(
                "Finds this request in the log; the caller's own if it sent a harmless one.",
                true,
                text(),
            ),
        ),
        (
            "ErrorCode",
            header("The number of the error: three digits of status, two of reason.", true, number(40_000)),
        ),
        ("RetryAfter", header("Whole seconds after which to try again.", false, number(1))),
        ("Authenticate", header("How to authenticate: `Bearer`.", true, text())),
    ]
}

fn envelope() -> Value {
    json!({
        "type": "object",
        "description": "Every error below `/api/`.",
        "required": ["code", "message", "data"],
        "properties": {
            "code": {"type": "integer", "format": "int32", "minimum": 40_000, "example": 40_001,
                "description": "The number of the error; never 0. Clients tell errors apart by it, not by the text."},
            "message": {"type": "string", "example": "Invalid API Key",
                "description": "For people, in the language asked for (`en`, `zh`)."},
            "data": {"description": "Null, or what a client can act on: `errors` with the `field`s at fault and the `rule` of each, \
                `retry_after_ms`, and of a model that is still `loading` its `state` and `progress` (0 to 1)."}
        }
    })
}

fn openai() -> Value {
    let nullable = |description: &str| json!({"type": ["string", "null"], "description": description});
    json!({
        "type": "object",
        "description": "Every error below `/v1/`, as OpenAI's clients read it.",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "title": "OpenAiErrorDetail",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "example": "Invalid API Key"},
                "type": {"type": "string", "example": "authentication_error"},
                "param": nullable("The field at fault, if one is."),
                "code": nullable("The stable name of the error.")
            }
        }}
    })
}

fn anthropic() -> Value {
    json!({
        "type": "object",
        "description": "Every error below `/v1/messages`, as Anthropic's clients read it.",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"type": "string", "enum": ["error"]},
            "error": {
                "type": "object",
                "title": "AnthropicErrorDetail",
                "required": ["type", "message"],
                "properties": {
                    "type": {"type": "string", "example": "authentication_error"},
                    "message": {"type": "string", "example": "Invalid API Key"}
                }
            },
            "request_id": {"type": "string", "example": "req_018EeWyXxfu5pfWkrYcMdjWG",
                "description": "Finds this request in the log."}
        }
    })
}

fn ollama() -> Value {
    json!({
        "type": "object",
        "description": "Every error of Ollama's URLs, as its clients read it.",
        "required": ["error"],
        "properties": {"error": {"type": "string", "example": "the model `llama3` does not exist"}}
    })
}
