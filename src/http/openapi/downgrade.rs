//! An OpenAPI 3.1 (or 3.2) document as `utoipa` writes it → a valid OpenAPI 3.0.3 document.
//!
//! Not a converter for every 3.1 document there may be: `$defs`, `if`/`then`/`else` and what else `utoipa` never writes is
//! left out, which widens a schema and never narrows it. The one thing to know: a name like `type` or `examples` means one
//! thing in a schema, another in a parameter and nothing in an example, so the walk carries the [`Kind`] of each node.

mod schema;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

/// Nodes may be nested this deep; what lies deeper is left out. A document of this server has less than 30 levels.
pub const MAX_DEPTH: usize = 100;

/// The version that comes out.
pub const VERSION: &str = "3.0.3";

/// What a node of the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Info,
    License,
    Server,
    Tag,
    Components,
    PathItem,
    Operation,
    Parameter,
    Body,
    Response,
    Media,
    Encoding,
    Example,
    SecurityScheme,
    Callback,
    Schema,
    /// Nothing below it is ours to change.
    Data,
}

/// How children hang below a name.
#[derive(Debug, Clone, Copy)]
enum Below {
    One(Kind),
    List(Kind),
    Map(Kind),
}

use Below::{List, Map as Each, One};

impl Kind {
    /// What hangs below the name `key` of a node of this kind.
    fn below(self, key: &str) -> Below {
        match (self, key) {
            (Self::Document, "info") => One(Self::Info),
            (Self::Document, "tags") => List(Self::Tag),
            (Self::Document, "paths") => Each(Self::PathItem),
            (Self::Document, "components") => One(Self::Components),
            (Self::Document | Self::PathItem | Self::Operation, "servers") => List(Self::Server),
            (Self::Info, "license") => One(Self::License),
            (Self::Components, "schemas") => Each(Self::Schema),
            (Self::Schema, "properties") => Each(Self::Schema),
            (Self::Components | Self::Operation, "responses") => Each(Self::Response),
            (Self::Components, "parameters") => Each(Self::Parameter),
            (Self::Components, "requestBodies") => Each(Self::Body),
            (Self::Components, "securitySchemes") => Each(Self::SecurityScheme),
            (Self::Components | Self::Operation, "callbacks") => Each(Self::Callback),
            (Self::Components | Self::Response | Self::Encoding, "headers") => Each(Self::Parameter),
            (Self::Components | Self::Parameter | Self::Media, "examples") => Each(Self::Example),
            (Self::Callback, _) => One(Self::PathItem),
            (Self::PathItem | Self::Operation, "parameters") => List(Self::Parameter),
            (Self::PathItem, "get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace") => {
                One(Self::Operation)
            }
            (Self::Operation, "requestBody") => One(Self::Body),
            (Self::Parameter | Self::Body | Self::Response, "content") => Each(Self::Media),
            (Self::Parameter | Self::Media, "schema") => One(Self::Schema),
            (Self::Media, "encoding") => Each(Self::Encoding),
            (Self::Schema, "allOf" | "anyOf" | "oneOf") => List(Self::Schema),
            (Self::Schema, "items" | "additionalProperties" | "not") => One(Self::Schema),
            _ => One(Self::Data),
        }
    }

    /// Names that 3.0 does not know in a node of this kind.
    fn unknown(self) -> &'static [&'static str] {
        match self {
            Self::Document => &["jsonSchemaDialect", "webhooks", "$self", "$schema"],
            Self::Info => &["summary"],
            Self::License => &["identifier"],
            Self::Server => &["name"],
            Self::Tag => &["summary", "parent", "kind"],
            Self::Components => &["pathItems", "mediaTypes"],
            Self::PathItem => &["query", "additionalOperations"],
            Self::Response => &["summary"],
            Self::Media => &["itemSchema", "prefixEncoding", "itemEncoding", "description"],
            Self::Encoding => &["encoding", "prefixEncoding", "itemEncoding"],
            Self::Example => &["serializedValue"],
            Self::SecurityScheme => &["deprecated", "oauth2MetadataUrl"],
            Self::Schema => schema::UNKNOWN,
            Self::Operation | Self::Parameter | Self::Body | Self::Callback | Self::Data => &[],
        }
    }

    /// Whether a node of this kind may be a reference, which then stands alone.
    fn may_be_reference(self) -> bool {
        matches!(
            self,
            Self::Parameter
                | Self::Body
                | Self::Response
                | Self::Example
                | Self::SecurityScheme
                | Self::Callback
        )
    }
}

/// The same document in the words of OpenAPI 3.0.3.
pub fn downgrade(mut document: Value) -> Value {
    node(Kind::Document, &mut document, 0);
    document
}

fn node(kind: Kind, value: &mut Value, depth: usize) {
    if kind == Kind::Data {
        return;
    }
    if depth == MAX_DEPTH {
        *value = Value::Object(Map::new());
    }
    if kind == Kind::Schema {
        schema::spell_out(value);
    }
    let Value::Object(object) = value else { return };
    change(kind, object);
    for (key, child) in object {
        match (kind.below(key), child) {
            (One(Kind::Schema), Value::Bool(_)) if key == "additionalProperties" => {}
            (One(kind), child) => node(kind, child, depth + 1),
            (List(kind), Value::Array(children)) => {
                children.iter_mut().for_each(|c| node(kind, c, depth + 1))
            }
            (Each(kind), Value::Object(children)) => {
                children.values_mut().for_each(|child| node(kind, child, depth + 1));
            }
            (List(_) | Each(_), _) => {}
        }
    }
}

/// What is to be done to one node itself.
fn change(kind: Kind, object: &mut Map<String, Value>) {
    if kind.may_be_reference() && object.contains_key("$ref") {
        object.retain(|key, _| key == "$ref");
        return;
    }
    for key in kind.unknown() {
        object.shift_remove(*key);
    }
    match kind {
        Kind::Document => {
            object.insert("openapi".into(), VERSION.into());
        }
        Kind::Response => {
            object.entry("description").or_insert("".into());
        }
        Kind::Example => rename(object, "dataValue", "value"),
        Kind::Schema => schema::change(object),
        _ => {}
    }
}

/// Gives a value a new name unless that is taken; the old name is gone in any case.
fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.shift_remove(from) {
        object.entry(to).or_insert(value);
    }
}
